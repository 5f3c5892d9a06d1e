"""Detectors as networks from images to one tensor, so that all that compresses classifiers fits.

`forward` gives the raw predictions of one batch, before boxes are decoded and duplicates removed:
it is what tracing, pruning, quantization, calibration and counting run. `losses` and `detect` go
through torchvision's own detector, whose modules are the same.

A two-stage detector (Faster R-CNN) reads its second stage at boxes that depend on the image. Its
`forward` takes a fixed grid of as many boxes as the detector is set to propose, so costs count the
second stage at that number.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from seernet.errors import ModelError


class Detector(nn.Module):
    """A detector with torchvision's interface.

    It needs `transform` (with `image_mean`, `image_std`), `backbone`, and either `head` (a
    dictionary of predictions from a list of feature maps: SSD, RetinaNet, FCOS) or `rpn` and
    `roi_heads` (Faster R-CNN). Class 0 is background inside of it.

    Args:
        model: The detector.

    Raises:
        ModelError: If it lacks a part.
    """

    mergeable = ("model.backbone",)
    """Submodules whose adds and concatenations can be found by tracing; see `expose_merges`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        parts = ("transform", "backbone")
        missing = [name for name in parts if not hasattr(model, name)]
        if not hasattr(model, "head") and not (
            hasattr(model, "rpn") and hasattr(model, "roi_heads")
        ):
            missing.append("head (or rpn and roi_heads)")
        if missing:
            raise ModelError(
                f"{type(model).__name__} is no detector with torchvision's interface: it lacks "
                f"{', '.join(missing)}; name a detector, e.g. torchvision:ssd300_vgg16."
            )
        self.model = model

    @property
    def two_stage(self) -> bool:
        """Whether it classifies regions that it has proposed itself."""
        return hasattr(self.model, "roi_heads")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Submodules that give the predictions."""
        if self.two_stage:
            return ("model.rpn.head", "model.roi_heads.box_predictor")
        return ("model.head",)

    def forward(self, images: Tensor) -> Tensor:
        """Raw predictions, `b x p`, for images `b x c x h x w` in [0, 1]."""
        features = self.model.backbone(self._normalized(images))  # type: ignore[operator]
        if isinstance(features, Tensor):
            features = {"0": features}
        maps = list(features.values())
        if not self.two_stage:
            return _flat(self.model.head(maps))  # type: ignore[operator]
        dense = _flat(self.model.rpn.head(maps))  # type: ignore[union-attr,operator]
        heads: Any = self.model.roi_heads
        height, width = images.shape[-2:]
        grid = self._grid(height, width).to(images)
        sizes = [(height, width)] * len(images)
        pooled = heads.box_roi_pool(features, [grid] * len(images), sizes)
        found = heads.box_predictor(heads.box_head(pooled))
        regions = [part.reshape(len(images), -1) for part in found]
        return torch.cat([dense, *regions], dim=1)

    def losses(self, images: Tensor, targets: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
        """Loss of a batch, and the raw predictions of its dense part, `b x p`.

        Args:
            images: `b x c x h x w` in [0, 1]; the network is in training mode.
            targets: Boxes and labels (from 0) of each image.
        """
        seen: list[Tensor] = []
        part: Any = self.model.rpn.head if self.two_stage else self.model.head  # type: ignore[union-attr]
        handle = part.register_forward_hook(lambda _, __, output: seen.append(_flat(output)))
        wanted = [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in targets]
        try:
            found = self.model(list(images), wanted)
        finally:
            handle.remove()
        return torch.stack(list(found.values())).sum(), seen[0]

    def detect(self, images: Tensor) -> list[dict[str, Tensor]]:
        """`boxes`, `scores` and `labels` (from 0) of each image; the network is in eval mode."""
        found = self.model(list(images))
        return [{**each, "labels": each["labels"] - 1} for each in found]

    def _normalized(self, images: Tensor) -> Tensor:
        transform: Any = self.model.transform
        mean, std = (
            images.new_tensor(values).view(1, -1, 1, 1)
            for values in (transform.image_mean, transform.image_std)
        )
        return (images - mean) / std

    def _grid(self, height: int, width: int) -> Tensor:
        """As many boxes as are proposed, of several sizes, spread over the image; `n x 4`."""
        rpn: Any = self.model.rpn
        count = int(rpn.post_nms_top_n())
        side = math.ceil(math.sqrt(count))
        places = torch.arange(count)
        centre = torch.stack([places % side, places // side], dim=1).add(0.5) / side
        extent = 0.5 ** (1.0 + places % 4)  # halves to sixteenths of the image
        corners = torch.cat([centre - extent[:, None] / 2, centre + extent[:, None] / 2], dim=1)
        return corners.clamp(0.0, 1.0) * torch.tensor([width, height] * 2)


def _flat(output: Any) -> Tensor:
    """All predictions of a head in one tensor, `b x p`."""
    values = output.values() if isinstance(output, dict) else output
    parts = [t for value in values for t in (value if isinstance(value, list | tuple) else [value])]
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def thaw(model: nn.Module) -> nn.Module:
    """Replace frozen batch norms by ordinary ones with the same statistics, in place.

    Pruning shifts statistics, so they must be estimated anew, which frozen ones cannot be.
    """
    from torchvision.ops import FrozenBatchNorm2d

    for name, module in list(model.named_modules()):
        if isinstance(module, FrozenBatchNorm2d):
            like = module.weight
            norm = nn.BatchNorm2d(len(like), module.eps, device=like.device, dtype=like.dtype)
            norm.load_state_dict(module.state_dict(), strict=False)
            model.set_submodule(name, norm)
    return model
