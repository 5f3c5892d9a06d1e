"""One training by several processes, each of which computes a share of every batch.

To `fit` nothing is different. It is given a network that answers for the whole batch: each process
runs its share of the images, and the outputs of all are gathered. So every process has the loss and
the scores of the whole batch, equal to the bit, and they decide alike. In the backward pass each
sends back what concerns its own share, and torch's `DistributedDataParallel` adds up the gradients
of the weights:

    dL/dw = sum over processes of dL/d(own outputs) x d(own outputs)/dw

That is the gradient of one process, up to rounding, whatever the number of processes, also for a
batch that they do not divide. It is not where images of a batch see each other: batch norm takes
the statistics of the whole batch on GPUs (`SyncBatchNorm`), on CPUs those of each process's share;
a detector's own loss is averaged over processes; and dropout draws other numbers.
"""

from __future__ import annotations

import copy
import itertools
import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from seernet.config import FinetuneConfig
from seernet.data import Dataset, Split, Target
from seernet.distributed import Team
from seernet.errors import SeerNetError
from seernet.evaluation.shares import TeamDataset, own_share
from seernet.training import Exact, Fit, Plan, Task, fit, remove_progress, score, scored, seeded

logger = logging.getLogger(__name__)

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Together(nn.Module):
    """A network of which each process computes a share of the batch; its weights are the network's.

    All processes must call it with the same batch, at the same time.

    Args:
        network: The network, the same in all processes.
        team: The processes.
        taught: Whether a detector's raw predictions are compared with a teacher's.
    """

    def __init__(self, network: nn.Module, team: Team, taught: bool = False) -> None:
        super().__init__()
        self.network = network
        self.team = team
        self.taught = taught
        self._learners: list[DistributedDataParallel] = []  # one, once it is needed
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs, `b x ...`, for images `b x c x h x w`.

        Raises:
            RuntimeError: If it is to be recorded as a CUDA graph; `Replay` then lets it be run.
        """
        if images.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("several processes train it together.")
        own = own_share(images, self.team)
        out = self._learner(own)(own) if self._learns() else self.network(own)
        return _gathered(out, self.team)[: len(images)]

    def losses(self, images: Tensor, targets: list[Target]) -> tuple[Tensor, Tensor]:
        """See `Detector.losses`; the loss is the mean of those of all processes.

        Raw predictions are large: they are gathered only if the network is taught by them.
        """
        own = [targets[i % len(targets)] for i in self.team.share(len(targets))]
        hard, raw = self._learner(None)(own_share(images, self.team), own)
        if self.taught:
            raw = _gathered(raw, self.team)[: len(images)]
        return _gathered(hard[None], self.team).mean(), raw

    def detect(self, images: Tensor) -> list[Target]:
        """See `Detector.detect`."""
        network: Any = self.network
        found = network.detect(own_share(images, self.team))
        counts = torch.tensor([len(each["labels"]) for each in found], device=images.device)
        lengths = self.team.gather(counts).tolist()
        rows = {key: self._rows(torch.cat([e[key] for e in found]), lengths) for key in found[0]}
        parts = {key: torch.split(value, lengths) for key, value in rows.items()}
        return [{key: part[i] for key, part in parts.items()} for i in range(len(images))]

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The network's own, so that any number of processes goes on from what others saved."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Take up what the network's own `state_dict` gave."""
        return self.network.load_state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> Together:
        """Set the mode, also of what adds up gradients, which may hold a copy."""
        super().train(mode)
        for learner in self._learners:
            learner.train(mode)  # type: ignore[no-untyped-call]
        return self

    @torch.no_grad()
    def average_norms(self) -> None:
        """Give all processes the mean of the batch statistics that they saw in training."""
        stats = [
            stat
            for norm in self.network.modules()
            if isinstance(norm, _BatchNorm) and norm.training and norm.track_running_stats
            for stat in (norm.running_mean, norm.running_var)
            if stat is not None
        ]
        if stats:
            mean = self.team.mean(torch.cat(stats))
            torch._foreach_copy_(stats, torch.split(mean, [len(stat) for stat in stats]))

    def _learns(self) -> bool:
        return self.training and torch.is_grad_enabled()

    def _learner(self, images: Tensor | None) -> DistributedDataParallel:
        """What adds up gradients; made when the network lies in memory as it will stay.

        Args:
            images: Some, for a network whose weights all images reach, or none; None for a
                detector, which uses some of its weights for some images only.
        """
        if not self._learners:
            network = self.network
            partial = images is None or _leaves_weights_out(network, images)
            if self.team.device == "cuda":
                network = _synchronized(network)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of a name that torch 2.15 changed
                learner = DistributedDataParallel(
                    _Step(network), broadcast_buffers=False, find_unused_parameters=partial
                )
            self._learners.append(learner)
        return self._learners[0]

    def _rows(self, own: Tensor, lengths: Sequence[int]) -> Tensor:
        """What all processes found, `n x ...`, if each image has so many rows."""
        each = len(lengths) // self.team.size
        totals = [sum(lengths[i : i + each]) for i in range(0, len(lengths), each)]
        padded = own.new_zeros((max(totals), *own.shape[1:]))
        padded[: len(own)] = own
        parts = self.team.gather(padded).chunk(self.team.size) if max(totals) else [padded]
        return torch.cat([part[:n] for part, n in zip(parts, totals, strict=False)])


def fit_together(team: Team, model: nn.Module, dataset: Dataset, plan: Plan) -> Fit:
    """Do what `fit` does, by all processes of a team; each has the outcome.

    An interrupted run goes on after its last finished epoch, with as many processes as there are
    now: where it stood is read, and written, by the process that leads.

    Args:
        team: The processes; alone, this is `fit`.
        model: The network, the same in all of them; trained in place.
        dataset: The data, the same in all of them.
        plan: See `Plan`. Only the leading process calls `on_epoch`.

    Raises:
        SeerNetError: If a process is to train something else than the leading one.
        TrainingError: If the loss is not a number.
    """
    if team.size == 1:
        return fit(model, dataset, plan)
    if team.leads and any(isinstance(module, _BatchNorm) for module in model.modules()):
        logger.info("%d processes train together: %s", team.size, _NORM_NEWS[team.device])
    config = plan.config
    taught = isinstance(config, FinetuneConfig) and config.distillation > 0.0
    together = Together(model, team, taught)

    def before_score(_: nn.Module) -> None:
        together.average_norms()
        if plan.before_score is not None:
            plan.before_score(model)

    own = _own_progress(plan.checkpoint, team)
    shared = replace(
        plan,
        before_score=before_score,
        teacher=None if plan.teacher is None else Together(plan.teacher, team),
        checkpoint=own,
        on_epoch=plan.on_epoch if team.leads else None,
    )
    try:
        return fit(together, TeamDataset(dataset, team), shared)
    finally:
        if own is not None and not team.leads:
            remove_progress(own)


def score_together(
    team: Team, network: nn.Module, dataset: Dataset, split: Split, task: Task
) -> dict[str, float]:
    """Metrics of a network on a split (see `Task.score`), in float64, in each process of a team."""
    network = Exact(network)
    if team.size > 1:
        network, dataset = Together(network, team), TeamDataset(dataset, team)
    return score(network, scored(dataset, split, exact=True), task)


_NORM_NEWS = {
    "cuda": "batch norm takes the statistics of the whole batch (SyncBatchNorm).",
    "cpu": "batch norm takes the statistics of each process's share of a batch, so the result "
    "depends on the number of processes; on GPUs it does not.",
}


def _own_progress(leader: Path | None, team: Team) -> Path | None:
    """Where this process keeps its progress: a copy of the leading one's, who may have no others.

    Raises:
        SeerNetError: If it is to be progress of something else in some process.
    """
    if leader is None:
        return None
    name = leader.name.encode()
    same = torch.tensor(float(team.from_leader(name) == name), device=team.device)
    if team.mean(same) < 1.0:
        raise SeerNetError(
            "the processes would not train the same: parameters, data, networks, code or torch "
            "differ between machines; bring all to the same commit and `dvc pull` on each."
        )
    content = leader.read_bytes() if team.leads and leader.exists() else b""
    content = team.from_leader(content)
    if team.leads:
        return leader
    own = leader.with_suffix(f".{team.rank}.tmp")  # so `remove_progress` takes it for a leftover
    own.parent.mkdir(parents=True, exist_ok=True)
    own.unlink(missing_ok=True)
    if content:
        own.write_bytes(content)
    return own


class _Step(nn.Module):
    """What `DistributedDataParallel` wraps: it looks after `forward` alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: list[Target] | None = None) -> Any:
        """Outputs; with targets, a detector's loss and its raw predictions."""
        network: Any = self.network
        return network(images) if targets is None else network.losses(images, targets)


class _Gather(torch.autograd.Function):
    """The outputs of all processes; backward, what concerns one's own.

    Every process has the whole loss and its gradient. That is multiplied by the number of processes
    since `DistributedDataParallel` divides by it.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, team: Team) -> Tensor:
        """Gather `k x ...` into `(size * k) x ...`."""
        ctx.team, ctx.count = team, len(own)
        return team.gather(own)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The rows of this process."""
        (gradient,) = gradients
        return gradient[ctx.team.rank * ctx.count :][: ctx.count] * ctx.team.size, None


def _gathered(own: Tensor, team: Team) -> Tensor:
    whole: Tensor = _Gather.apply(own, team)
    return whole


def _leaves_weights_out(network: nn.Module, images: Tensor) -> bool:
    """Whether outputs do not depend on all weights; the network and torch's generator stay."""
    twin = copy.deepcopy(network)
    weights = [weight for weight in twin.parameters() if weight.requires_grad]
    with seeded(0):
        total = twin(images).sum()
    slopes = torch.autograd.grad(total, weights, allow_unused=True)
    return any(slope is None for slope in slopes)


def _synchronized(network: nn.Module) -> nn.Module:
    """A copy with the same tensors, whose batch norms take the statistics of all processes.

    Norms of a class of the user's, and those that are frozen by one, stay as they are.
    """
    tensors = itertools.chain(network.parameters(), network.buffers())
    twin = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    for name, module in list(twin.named_modules()):
        if type(module) in _NORMS:
            norm = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
            twin.set_submodule(name, norm)
    return twin
