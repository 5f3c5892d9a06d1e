"""The seam between training and what is learned: loss, metric, score in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seernet.data import Targets
from seernet.errors import ConfigError, TrainingError


@dataclass(frozen=True)
class Distillation:
    """Soft targets from the baseline.

    Attributes:
        teacher: The baseline, in eval mode.
        weight: Share of the soft loss, in [0, 1].
        temperature: Softmax temperature.
    """

    teacher: nn.Module
    weight: float
    temperature: float


class Task(Protocol):
    """What training needs to know of a task; nothing above asks which one it is."""

    @property
    def metric(self) -> str:
        """Name of the metric that is the score."""
        ...

    @property
    def guess(self) -> float:
        """Score of a network that guesses."""
        ...

    def loss(
        self, model: nn.Module, images: Tensor, targets: Targets, soft: Distillation | None
    ) -> Tensor:
        """Mean loss of one batch, a scalar; `model` is in training mode."""
        ...

    def divergence(self, found: Tensor, expected: Tensor) -> float:
        """How far a network's raw outputs are from another's for the same images, at least 0."""
        ...

    def score(
        self, model: nn.Module, batches: Iterable[tuple[Tensor, Targets]]
    ) -> dict[str, float]:
        """Metrics over all batches, `model` being in eval mode; `score` is the one in [0, 1].

        `soft_score`, if there is one, rises with the score but has no steps: it is less noisy.
        """
        ...


@dataclass(frozen=True)
class Classification:
    """One label an image; the score is top-1 accuracy.

    Attributes:
        label_smoothing: Of the loss, in [0, 1).
        guess: One over the number of classes.
    """

    label_smoothing: float = 0.0
    guess: float = 0.0
    metric: str = "top1"

    def loss(
        self, model: nn.Module, images: Tensor, targets: Targets, soft: Distillation | None
    ) -> Tensor:
        """Cross entropy, mixed with the divergence from the teacher's softened output.

        Source:
            Hinton et al. (2015), Distilling the Knowledge in a Neural Network, sec. 2.
        """
        labels = _labels(targets)
        logits = model(images)
        hard = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if soft is None or soft.weight == 0.0:
            return hard
        with torch.no_grad():
            teacher = soft.teacher(images)
        divergence = F.kl_div(
            F.log_softmax(logits / soft.temperature, dim=1),
            F.log_softmax(teacher / soft.temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return torch.lerp(hard, divergence * soft.temperature**2, soft.weight)

    def divergence(self, found: Tensor, expected: Tensor) -> float:
        """Mean Kullback-Leibler divergence of the classes' probabilities, in nats."""
        found, expected = F.log_softmax(found, dim=1), F.log_softmax(expected, dim=1)
        return float(F.kl_div(found, expected, reduction="batchmean", log_target=True))

    def score(
        self, model: nn.Module, batches: Iterable[tuple[Tensor, Targets]]
    ) -> dict[str, float]:
        """Top-1 accuracy as `score`, top-5 accuracy where there are more than five classes.

        The `soft_score` is the mean probability that is given to the right class.

        Raises:
            ConfigError: If there is no image.
            TrainingError: If an output is not a number: such a network has no accuracy.
        """
        hits: Tensor | None = None
        finite = torch.ones(())
        right = torch.zeros((), dtype=torch.float64)
        count = 0
        classes = 0
        for images, targets in batches:
            labels = _labels(targets)
            logits = model(images)
            classes = logits.shape[1]
            finite = finite.to(logits.device) * logits.isfinite().all()
            top = logits.topk(min(5, classes), dim=1).indices == labels[:, None]
            found = top.cumsum(dim=1).sum(dim=0)  # stays on the device: no wait in the loop
            hits = found if hits is None else hits + found
            given = logits.double().softmax(dim=1).gather(1, labels[:, None])
            right = right.to(logits.device) + given.sum()
            count += len(labels)
        if hits is None:
            raise ConfigError("nothing to score: the split is empty; check data.search_fraction.")
        if not finite:
            raise TrainingError("the network's outputs are not finite; lower the learning rate.")
        accuracy = [found / count for found in hits.tolist()]
        top5 = {"top5": accuracy[-1]} if classes > 5 else {}
        return {"score": accuracy[0], "soft_score": float(right) / count, **top5}


def _labels(targets: Targets) -> Tensor:
    if not isinstance(targets, Tensor):
        raise TypeError("classification needs labels, not boxes")
    return targets
