"""Processes that train one network together, as torch's own launcher `torchrun` starts them.

`torchrun` tells each process its place in the environment: RANK, LOCAL_RANK, WORLD_SIZE and where
to meet. Without these a process is alone, and nothing here does anything.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from seernet.errors import ConfigError, SeerNetError

if TYPE_CHECKING:
    from torch import Tensor

LAUNCH = "SEERNET_TORCHRUN"
TIMEOUT = timedelta(minutes=10)  # that a process waits for another one, which may be decoding


def launch() -> None:
    """Become `torchrun` with the options in the environment's SEERNET_TORCHRUN, if there are any.

    It starts the script that is running again, as often as its options say. Does nothing in a
    process that was started so.
    """
    options = os.environ.get(LAUNCH)
    if options and "RANK" not in os.environ:
        torchrun = [sys.executable, "-m", "torch.distributed.run", *shlex.split(options)]
        os.execv(sys.executable, [*torchrun, *sys.argv])


def leads() -> bool:
    """Whether this process is the one that writes files, logs and progress bars."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class Team:
    """The processes that train together.

    Attributes:
        rank: The number of this one, from 0, the one that leads.
        size: How many they are.
        device: Where their collective operations take tensors, `cpu` or `cuda`.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The part of a batch of `count` images that this process computes.

        All parts are equally long: the ceiling of `count / size`. They cover the batch in order,
        and what goes beyond its end stands for images from its beginning once more: whoever
        gathers the results drops these.
        """
        each = -(-count // self.size)
        return range(self.rank * each, (self.rank + 1) * each)

    def gather(self, part: Tensor) -> Tensor:
        """What all processes have, one after the other.

        Args:
            part: `k x ...`, of the same shape in each of them.

        Returns:
            `(size * k) x ...`, without gradients.
        """
        import torch.distributed as dist

        part = part.detach().contiguous()
        whole = part.new_empty((self.size * part.shape[0], *part.shape[1:]))
        dist.all_gather_into_tensor(whole, part)
        return whole

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes of a tensor that has the same shape in each."""
        import torch.distributed as dist

        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def from_leader(self, content: bytes) -> bytes:
        """What process 0 gives; what others give is ignored."""
        import numpy
        import torch
        import torch.distributed as dist

        length = torch.tensor([len(content)], device=self.device)
        dist.broadcast(length, 0)
        data = torch.zeros(int(length), dtype=torch.uint8)
        if self.leads:
            data = torch.from_numpy(numpy.frombuffer(content, dtype=numpy.uint8).copy())
        data = data.to(self.device)
        dist.broadcast(data, 0)
        return data.cpu().numpy().tobytes()


ALONE = Team()


@contextmanager
def joined(device: str) -> Iterator[Team]:
    """Join the processes that `torchrun` started, for as long as the context lasts.

    On GPUs each process takes the one of its number on its machine, and they speak NCCL; on CPUs
    they speak gloo.

    Args:
        device: `cpu` or `cuda`.

    Yields:
        The team; `ALONE` where there is one process.

    Raises:
        ConfigError: If a machine has more processes than GPUs.
        SeerNetError: If another process ended, or was silent for ten minutes.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    own = None
    if device == "cuda":
        place, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if place >= found:
            raise ConfigError(
                f"each process trains on a GPU of its own, but process {place} of this machine "
                f"finds {found}; give torchrun --nproc-per-node {found}, or set device: cpu."
            )
        own = torch.device("cuda", place)
        torch.cuda.set_device(own)
    try:
        dist.init_process_group("nccl" if own else "gloo", timeout=TIMEOUT, device_id=own)
        yield Team(dist.get_rank(), dist.get_world_size(), device)
    except RuntimeError as error:
        if not _is_of_others(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise SeerNetError(
            f"another process of this training ended, or cannot be reached ({reason}); finished "
            "epochs are kept: see above, or on its machine, for its own error, and run again."
        ) from error
    dist.destroy_process_group()  # not after an error: it would wait for what is gone


def _is_of_others(error: RuntimeError) -> bool:
    """Whether an error is one of communication."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
