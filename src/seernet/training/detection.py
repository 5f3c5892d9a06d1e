"""Detection: torchvision's losses, and mean average precision as COCO defines it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seernet.data import Target, Targets
from seernet.errors import ConfigError, TrainingError
from seernet.training.task import Distillation


@dataclass(frozen=True)
class Detection:
    """Boxes and their classes; the score is mAP@[.5:.95].

    Attributes:
        classes: Their names.
    """

    classes: tuple[str, ...]
    metric: str = "map"
    guess: float = 0.0

    def loss(
        self, model: nn.Module, images: Tensor, targets: Targets, soft: Distillation | None
    ) -> Tensor:
        """The detector's own loss, mixed with the distance from the teacher's raw predictions.

        That is the mean squared difference over the variance of the teacher's. The second stage of
        a two-stage detector looks at other regions than its teacher and is not taught.
        """
        detector: Any = model
        hard, raw = detector.losses(images, targets)
        if soft is None or soft.weight == 0.0:
            return torch.as_tensor(hard)
        with torch.no_grad():
            teacher = soft.teacher(images)[:, : raw.shape[1]]
        return torch.lerp(hard, _distance(raw, teacher), soft.weight)

    def divergence(self, found: Tensor, expected: Tensor) -> float:
        """Squared difference of raw predictions, over the variance of the expected ones."""
        return float(_distance(found, expected))

    def score(
        self, model: nn.Module, batches: Iterable[tuple[Tensor, Targets]]
    ) -> dict[str, float]:
        """mAP@[.5:.95] as `score`, mAP@.5 as `map_50`, and `map/<class>` for each class.

        Raises:
            ConfigError: If there is no image.
            TrainingError: If a weight is not a number: such a network has no score.
        """
        from torchmetrics.detection import MeanAveragePrecision

        if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
            raise TrainingError("the network's weights are not finite; lower the learning rate.")
        metric = MeanAveragePrecision(class_metrics=True)
        metric.warn_on_many_detections = False
        detector: Any = model
        empty = True
        for images, targets in batches:
            found = [_on_cpu(each) for each in detector.detect(images)]
            metric.update(found, [_truth(target) for target in targets])
            empty = False
        if empty:
            raise ConfigError("nothing to score: the split is empty; check data.search_fraction.")
        result = metric.compute()
        present = result["classes"].reshape(-1).tolist()
        values = result["map_per_class"].reshape(-1).tolist()
        if float(result["map"]) < 0.0:
            raise ConfigError("nothing to score: the split has no box; raise its share of images.")
        each = {
            f"map/{self.classes[index]}": value
            for index, value in zip(present, values, strict=True)
            if value >= 0.0  # -1: there is none to be found
        }
        return {"score": float(result["map"]), "map_50": float(result["map_50"]), **each}


def _distance(found: Tensor, expected: Tensor) -> Tensor:
    found, expected = found.float(), expected.float()
    return (found - expected).square().mean() / expected.var().clamp_min(1e-12)


def _on_cpu(target: Target) -> Target:
    return {
        key: value.detach().float().cpu() if value.is_floating_point() else value.cpu()
        for key, value in target.items()
    }


def _truth(target: Target) -> Target:
    target = _on_cpu(target)
    return {
        "boxes": target["boxes"],
        "labels": target["labels"],
        "iscrowd": target["crowd"].to(torch.int64),
    }
