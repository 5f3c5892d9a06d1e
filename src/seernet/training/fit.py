"""Training over epochs: the best epoch on the search split is kept, and interruptions cost one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from seernet.config import FinetuneConfig, TrainConfig
from seernet.data import Augment, Batch, Dataset, Split
from seernet.models import lay_out
from seernet.progress import bar
from seernet.training.checkpoint import Progress, load_progress, save_progress
from seernet.training.loop import Recipe, make_optimizer, replay_on, score, seeded, train_steps
from seernet.training.task import Distillation, Task
from seernet.training.tasks import make_task

SCORED_AT_ONCE = 256  # images, at most
SCORED_PIXELS = 1 << 22


@dataclass(frozen=True)
class Plan:
    """Everything `fit` needs beside the network and the data.

    Attributes:
        config: The schedule.
        augment: Augmentation of training images.
        seed: Seed of the order and augmentation of images, and of dropout.
        before_score: Called on the network before each scoring, e.g. to re-estimate norms.
        teacher: The network whose soft targets are mixed in, if `config` asks for it.
        checkpoint: File that holds the progress until the run is complete; None keeps none.
        on_epoch: Called with each row of the history, those of a resumed run included.
        label: What the progress bar says.
        line: Its line, where several runs show one.
    """

    config: TrainConfig
    augment: Augment
    seed: int
    before_score: Callable[[nn.Module], None] | None = None
    teacher: nn.Module | None = None
    checkpoint: Path | None = None
    on_epoch: Callable[[dict[str, float]], None] | None = None
    label: str = "training"
    line: int = 0


@dataclass(frozen=True)
class Fit:
    """Outcome of a training run.

    Attributes:
        best_epoch: Epoch (from 1) whose network was kept; 0 is the network before training.
        search_score: Its score on the search split.
        history: One row an epoch: `epoch`, `loss`, `score`.
    """

    best_epoch: int
    search_score: float
    history: list[dict[str, float]]


def fit(model: nn.Module, dataset: Dataset, plan: Plan) -> Fit:
    """Train `model` in place and leave it as it was after its best epoch.

    A run that was interrupted goes on after its last finished epoch, with the same result to the
    bit as one that was not.

    Raises:
        TrainingError: If the loss is not a number.
    """
    config = plan.config
    task = make_task(dataset.info, config.label_smoothing)
    loader = dataset.loader("train", config.batch_size, augment=plan.augment, seed=plan.seed)
    recipe = _recipe(config, len(loader))
    lay_out(model, dataset.info.input_shape)
    optimizer = make_optimizer(model, recipe)
    progress = load_progress(plan.checkpoint, model, optimizer) or Progress.start(model)
    soft = _distillation(config, plan.teacher)
    replay = replay_on(model)
    for row in progress.history:
        _notify(plan, row)
    with bar(config.epochs, plan.label, "epoch", plan.line) as shown:
        shown.update(progress.epoch)
        for epoch in range(progress.epoch, config.epochs):
            with seeded(plan.seed * 100_003 + epoch):
                first, batches = epoch * len(loader), loader.epoch(epoch)
                loss = train_steps(model, batches, task, optimizer, recipe, first, soft, replay)
            found = _search_score(model, dataset, task, plan)
            progress.record(model, epoch + 1, loss, found)
            if plan.checkpoint is not None:
                save_progress(plan.checkpoint, model, optimizer, progress)
            _notify(plan, progress.history[-1])
            shown.set_postfix(loss=f"{loss:.3f}", score=f"{found:.4f}", refresh=False)
            shown.update()
    if progress.best_epoch == 0:
        progress.record(model, 0, 0.0, _search_score(model, dataset, task, plan))
    model.load_state_dict(progress.best_state)
    model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    return Fit(progress.best_epoch, progress.best_score, progress.history)


def _search_score(model: nn.Module, dataset: Dataset, task: Task, plan: Plan) -> float:
    if plan.before_score is not None:
        plan.before_score(model)
    return score(model, scored(dataset, "search"), task)["score"]


def scored(dataset: Dataset, split: Split, *, exact: bool = False) -> Iterator[Batch]:
    """Batches to score a network on: all images of a split, as many at once as fit memory well.

    Args:
        dataset: The data.
        split: The split.
        exact: Whether for an `Exact` network, which takes up to four times the memory.
    """
    _, height, width = dataset.info.input_shape
    pixels = SCORED_PIXELS // 4 if exact else SCORED_PIXELS
    size = max(1, min(SCORED_AT_ONCE, pixels // (height * width)))
    return dataset.loader(split, size).epoch(0)


def _notify(plan: Plan, row: dict[str, float]) -> None:
    if plan.on_epoch is not None:
        plan.on_epoch(row)


def train_macs(config: TrainConfig, macs: int, images: int, teacher: int = 0) -> int:
    """Compute of a training run, in MACs: a step costs three forward passes (one is forward).

    Args:
        config: The schedule.
        macs: Of the network, for one image.
        images: In the train split.
        teacher: MACs of the network that teaches, for one image; 0 where none does.
    """
    steps = config.epochs * max(1, images // config.batch_size)
    return (3 * macs + teacher) * steps * min(config.batch_size, images)


def _recipe(config: TrainConfig, steps: int) -> Recipe:
    return Recipe(
        learning_rate=config.learning_rate,
        step_learning_rate=(
            config.step_learning_rate if isinstance(config, FinetuneConfig) else 0.0
        ),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        steps=config.epochs * steps,
        warmup=round(min(config.warmup_epochs, config.epochs / 2) * steps),
        precision=config.precision,
    )


def _distillation(config: TrainConfig, teacher: nn.Module | None) -> Distillation | None:
    if not isinstance(config, FinetuneConfig) or teacher is None or config.distillation == 0.0:
        return None
    return Distillation(teacher.eval(), config.distillation, config.temperature)
