"""Training steps: SGD with Nesterov momentum, a cosine schedule after a linear warm-up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seernet.data import Targets
from seernet.errors import TrainingError
from seernet.training.depthwise import exact_depthwise
from seernet.training.replay import Replay
from seernet.training.task import Distillation, Task

_SMALLEST_STEP = 1e-8
_CHECK_EVERY = 50


@dataclass(frozen=True)
class Recipe:
    """How weights move.

    Attributes:
        learning_rate: Peak learning rate of weights, biases and norms.
        step_learning_rate: Peak learning rate of quantization step sizes.
        momentum: Of SGD, Nesterov.
        weight_decay: Of weights; biases, norms and step sizes have none.
        steps: Length of the schedule.
        warmup: Steps of linear warm-up, of these.
        precision: `float32`, or `bfloat16` for the forward pass under autocast.
    """

    learning_rate: float
    step_learning_rate: float
    momentum: float
    weight_decay: float
    steps: int
    warmup: int = 0
    precision: str = "float32"

    def factor(self, step: int) -> float:
        """Learning rate at a step, relative to the peak."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Group the parameters as the recipe asks."""
    steps = _steps(model)
    known = {id(step) for step in steps}
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    weights = [parameter for parameter in others if parameter.dim() > 1]
    plain = [parameter for parameter in others if parameter.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": recipe.weight_decay, "peak": recipe.learning_rate},
        {"params": plain, "weight_decay": 0.0, "peak": recipe.learning_rate},
        {"params": steps, "weight_decay": 0.0, "peak": recipe.step_learning_rate},
    ]
    groups = [group for group in groups if group["params"]]
    for group in groups:
        if group["params"][0].is_cuda:  # a number would be fixed when a step is recorded
            group["lr"] = torch.zeros((), device=group["params"][0].device)
    optimizer = torch.optim.SGD(
        groups,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0.0,
        fused=True,
    )
    if recipe.momentum > 0.0:
        # Fused, it takes no parameter whose first gradient comes later than others' (layer drop).
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def reproducible(threads: int) -> None:
    """Let torch compute the same in every run: so many threads, and no kernel chosen by speed.

    On a GPU some gradients are sums in any order (`roi_align`, adaptive pooling): they may differ
    in the last digits.
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, as on a CPU


def replay_on(model: nn.Module) -> Replay | None:
    """What replays a network's training steps, if it lies on a GPU."""
    return Replay() if next(model.parameters()).is_cuda else None


def _steps(model: nn.Module) -> list[nn.Parameter]:
    """The step sizes of all quantizers (not whatever a network calls so)."""
    quantizers = (module for module in model.modules() if getattr(module, "learns_step", False))
    return [module.step for module in quantizers]  # type: ignore[misc]


def train_steps(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Targets]],
    task: Task,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    first_step: int = 0,
    soft: Distillation | None = None,
    replay: Replay | None = None,
) -> float:
    """Train over the batches.

    Args:
        model: The network, changed in place, left in training mode.
        batches: Images `n x c x h x w` and targets, on the model's device.
        task: Its loss.
        optimizer: From `make_optimizer`.
        recipe: The schedule.
        first_step: Where on the schedule the first batch lies.
        soft: Soft targets, if any.
        replay: From `replay_on`, for all steps of a training; None runs them one kernel at a time.

    Returns:
        Mean loss.

    Raises:
        TrainingError: If the loss is not a number.
    """
    model.train()
    steps = _steps(model)
    device = next(model.parameters()).device.type
    low = recipe.precision == "bfloat16"
    exact = exact_depthwise(model) if low else nullcontext()

    def step(images: Tensor, targets: Targets) -> Tensor:
        with exact, torch.autocast(device, torch.bfloat16, enabled=low):
            loss = task.loss(model, images, targets, soft)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if steps:
            torch._foreach_clamp_min_([step.data for step in steps], _SMALLEST_STEP)
        return loss.detach()

    total: Tensor | None = None
    count = 0
    for images, targets in batches:
        for group in optimizer.param_groups:
            _set_rate(group, group["peak"] * recipe.factor(first_step + count))
        loss = step(images, targets) if replay is None else replay(step, images, targets)
        total = loss.clone() if total is None else total + loss
        count += 1
        if count % _CHECK_EVERY == 0:
            _check_finite(total, first_step + count)
    if total is None:
        return 0.0
    _check_finite(total, first_step + count)
    return float(total) / count


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _check_finite(total: Tensor, step: int) -> None:
    if not math.isfinite(float(total)):
        raise TrainingError(
            f"the loss is {float(total)} by step {step}; lower `learning_rate` of what was being "
            "trained (in pretrain, sample.evaluation or finetune), give pretrain or finetune more "
            "`warmup_epochs`, or check the images for corrupt values."
        )


@torch.no_grad()
def score(
    model: nn.Module, batches: Iterable[tuple[Tensor, Targets]], task: Task
) -> dict[str, float]:
    """Score a network in eval mode, and leave it in the mode it was in."""
    training = model.training
    model.eval()
    try:
        return task.score(model, batches)
    finally:
        model.train(training)


def _cuda_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator (initial weights, dropout); it is restored on leaving."""
    # A CUDA that is not in use has no state to restore, and asking for it would start it.
    devices = range(torch.cuda.device_count()) if _cuda_in_use() else ()
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed % 2**63)
        yield
