"""Exported files in ONNX Runtime, as networks that can be scored like any other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from seernet.config import ExportConfig
from seernet.data import Batch, Target
from seernet.errors import ExportError
from seernet.export.onnx_file import INPUT, session
from seernet.export.packed import Shipped

CONFIDENT = 0.5
OVERLAP = 0.5


class RuntimeNetwork(nn.Module):
    """A `model.onnx` that takes and gives what the torch network does.

    Args:
        path: The file.
        shipped: What it is.
        threads: Of ONNX Runtime; 0 takes one for each core.
    """

    def __init__(self, path: Path, shipped: Shipped, threads: int = 0) -> None:
        super().__init__()
        self._session = session(path, threads)
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) * 255.0
            for values in (shipped.mean, shipped.std)
        )
        self.properties = self._session.get_modelmeta().custom_metadata_map

    def _run(self, images: Tensor) -> list[Tensor]:
        """Undo the normalisation, exactly, and run."""
        pixels = (images.cpu().double() * self._std + self._mean).round().to(torch.uint8)
        given = {INPUT: pixels.permute(0, 2, 3, 1).contiguous().numpy()}
        return [torch.from_numpy(np.array(value)) for value in self._session.run(None, given)]

    def forward(self, images: Tensor) -> Tensor:
        """What a classifier gives for normalised images, `n x c x h x w`: `n x classes`."""
        (logits,) = self._run(images)
        return logits.to(images.device)

    def detect(self, images: Tensor) -> list[Target]:
        """What a detector finds; see `Detector.detect`."""
        boxes, scores, selected = self._run(images)
        limit = int(self.properties["detections_per_image"])
        found = []
        for index in range(len(images)):
            _, label, place = selected[selected[:, 0] == index].T
            best = scores[index, label, place].argsort(descending=True, stable=True)[:limit]
            label, place = label[best], place[best]
            found.append(
                {
                    "boxes": boxes[index, place],
                    "scores": scores[index, label, place],
                    "labels": label,
                }
            )
        return found


@dataclass
class Agreement:
    """How many decisions of two networks are the same."""

    same: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        """In [0, 1]; 1 where nothing was decided."""
        return self.same / self.total if self.total else 1.0


def agreement(
    task: str, network: nn.Module, other: nn.Module, batches: Iterable[Batch]
) -> Agreement:
    """Compare two networks, both in eval mode, image for image.

    For classification the classes are compared. For detection, each box that one of them is
    confident of (score of at least 0.5) is to be found by the other: same class, half overlap.
    """
    result = Agreement()
    with torch.no_grad():
        for images, _ in batches:
            if task == "classification":
                one, two = (model(images).argmax(dim=1).cpu() for model in (network, other))
                result.same += int((one == two).sum())
                result.total += len(images)
                continue
            pairs = zip(
                *(cast(Any, model).detect(images) for model in (network, other)), strict=True
            )
            for first, second in pairs:
                for target, reference in ((first, second), (second, first)):
                    sure = {
                        k: v.cpu()[target["scores"].cpu() >= CONFIDENT] for k, v in target.items()
                    }
                    result.same += _found(sure, {k: v.cpu() for k, v in reference.items()})
                    result.total += len(sure["labels"])
    return result


def _found(target: Target, reference: Target) -> int:
    """How many boxes of `target` are in `reference`."""
    near = box_iou(target["boxes"].float(), reference["boxes"].float()) >= OVERLAP
    alike = target["labels"][:, None] == reference["labels"][None]
    return int((near & alike).any(dim=1).sum()) if len(reference["labels"]) else 0


def check_parity(metrics: Mapping[str, float], config: ExportConfig, images: int) -> None:
    """Hold what was compared against what is promised; two images may always differ.

    Args:
        metrics: `agreement`, `test_score` and `exported_score`.
        config: The `export` section.
        images: How many the test split has.

    Raises:
        ExportError: If the exported network is another one.
    """
    few = (2 + 1e-6) / images
    off = abs(metrics["exported_score"] - metrics["test_score"])
    if off > max(config.score_tolerance, few) or 1.0 - metrics["agreement"] > max(
        1.0 - config.agreement, few
    ):
        raise ExportError(
            f"model.onnx scores {metrics['exported_score']:.4f} on the test split where the "
            f"network scores {metrics['test_score']:.4f} (`export.score_tolerance` is "
            f"{config.score_tolerance:g}), and they agree on {100 * metrics['agreement']:.2f} % "
            f"(`export.agreement` is {100 * config.agreement:g} %); loosen these if that is good "
            "enough for you, or set `export.onnx: false`."
        )
