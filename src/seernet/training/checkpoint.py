"""Progress of a training run on disk, so that an interruption costs at most one epoch."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: Finished epochs.
        best_epoch: Epoch whose network is the best so far.
        best_score: Its score on the search split.
        best_state: Its state dict.
        history: One row an epoch.
    """

    epoch: int
    best_epoch: int
    best_score: float
    best_state: dict[str, Tensor]
    history: list[dict[str, float]]

    @classmethod
    def start(cls, model: nn.Module) -> Progress:
        """Progress before the first epoch."""
        return cls(0, 0, float("-inf"), _state(model), [])

    def record(self, model: nn.Module, epoch: int, loss: float, score: float) -> None:
        """Note a finished epoch; of equal scores, the later network is kept."""
        self.epoch = epoch
        if epoch:
            self.history.append({"epoch": epoch, "loss": loss, "score": score})
        if score >= self.best_score:
            self.best_epoch, self.best_score, self.best_state = epoch, score, _state(model)


def save_progress(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write all that is needed to go on, atomically."""
    tensors = {f"model/{key}": value for key, value in _state(model).items()}
    tensors |= {f"best/{key}": value for key, value in progress.best_state.items()}
    for index, parameter in enumerate(_parameters(optimizer)):
        buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            tensors[f"momentum/{index}"] = buffer.detach()
    meta = {
        "epoch": progress.epoch,
        "best_epoch": progress.best_epoch,
        "best_score": progress.best_score,
        "history": progress.history,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        save_file(
            {key: value.contiguous().cpu() for key, value in tensors.items()},
            temporary,
            metadata={"progress": json.dumps(meta)},
        )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_progress(
    path: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress | None:
    """Take up a run where it stopped; a damaged file means starting again, with a warning."""
    if path is None or not path.exists():
        return None
    untouched = _state(model)
    try:
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            meta: dict[str, Any] = json.loads(file.metadata()["progress"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        model.load_state_dict(_part(tensors, "model/"))
        for index, parameter in enumerate(_parameters(optimizer)):
            if f"momentum/{index}" in tensors:
                buffer = torch.empty_like(parameter).copy_(tensors[f"momentum/{index}"])
                optimizer.state[parameter]["momentum_buffer"] = buffer
        progress = Progress(**meta, best_state=_part(tensors, "best/"))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        logger.warning("progress file %s is unusable (%s); training starts again.", path, reason)
        model.load_state_dict(untouched)  # it may have been filled in part
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()
        return None
    logger.info("going on after epoch %d (%s)", progress.epoch, path)
    return progress


def remove_progress(path: Path) -> None:
    """Remove a progress file, and what a process killed while writing it left beside it."""
    for leftover in [path, *path.parent.glob(f"{path.stem}.*.tmp")]:
        leftover.unlink(missing_ok=True)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
