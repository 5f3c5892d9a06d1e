"""Exported files in ONNX Runtime, as networks that can be scored like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from seernet.data import Target
from seernet.export.onnx_file import INPUT, session
from seernet.export.packed import Shipped


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
