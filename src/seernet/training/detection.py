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

_NO_AREA = 1e11  # square pixels; COCO's largest objects have 1e10


@dataclass(frozen=True)
class Detection:
    """Boxes and their classes; the score is mAP@[.5:.95].

    Attributes:
        classes: Their names.
        crowds: Whether boxes that do not count are COCO's crowds, which take any detection inside
            of them; else VOC's difficult objects, which take the one that overlaps them most.
        guess: mAP below which a detector has learned next to nothing.
    """

    classes: tuple[str, ...]
    crowds: bool = False
    metric: str = "map"
    guess: float = 0.01

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
        metric = MeanAveragePrecision(extended_summary=True)
        metric.warn_on_many_detections = False
        detector: Any = model
        empty = True
        for images, targets in batches:
            found = [_on_cpu(each) for each in detector.detect(images)]
            metric.update(found, [self._truth(target) for target in targets])
            empty = False
        if empty:
            raise ConfigError("nothing to score: the split is empty; check data.search_fraction.")
        result = metric.compute()
        if float(result["map"]) < 0.0:
            raise ConfigError("nothing to score: the split has no box; give it images with boxes.")
        # Thresholds x recalls x classes, of all sizes and the most detections; of a class of which
        # there is none to be found, -1.
        curves = result["precision"][:, :, :, 0, -1]
        present = result["classes"].reshape(-1).tolist()
        each = {
            f"map/{self.classes[index]}": float(curve.mean(dtype=torch.float64))
            for index, curve in zip(present, curves.unbind(dim=2), strict=True)
            if bool((curve >= 0.0).all())
        }
        return {"score": float(result["map"]), "map_50": float(result["map_50"]), **each}

    def _truth(self, target: Target) -> Target:
        """What torchmetrics takes. Difficult boxes are ignored by an area that counts nowhere."""
        target = _on_cpu(target)
        crowd = target["crowd"]
        found = {"boxes": target["boxes"], "labels": target["labels"]}
        if self.crowds:
            return {**found, "iscrowd": crowd.to(torch.int64)}
        left, top, right, bottom = target["boxes"].unbind(dim=1)
        area = (right - left) * (bottom - top)
        return {**found, "area": area.masked_fill(crowd, _NO_AREA)}


def _distance(found: Tensor, expected: Tensor) -> Tensor:
    found, expected = found.float(), expected.float()
    return (found - expected).square().mean() / expected.var().clamp_min(1e-12)


def _on_cpu(target: Target) -> Target:
    return {
        key: value.detach().float().cpu() if value.is_floating_point() else value.cpu()
        for key, value in target.items()
    }
