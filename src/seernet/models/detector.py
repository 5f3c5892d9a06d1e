"""Detectors as networks from images to one tensor, so that all that compresses classifiers fits.

`forward` gives the raw predictions of one batch, before boxes are decoded and duplicates removed:
it is what tracing, pruning, quantization, calibration and counting run. `losses` and `detect` go
through torchvision's own detector, whose modules are the same.

A two-stage detector (Faster R-CNN) reads its second stage at boxes that depend on the image. Its
`forward` takes a fixed grid of as many boxes as the detector is set to propose, so costs count the
second stage at that number.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
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

    traceable = ("model.backbone",)
    """Submodules whose adds and concatenations can be found by tracing; see `expose_maps`."""

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
        unset = [n for n in ("image_mean", "image_std") if not hasattr(model.transform, n)]
        if unset:
            raise ModelError(
                f"the transform of {type(model).__name__} lacks {', '.join(unset)}, by which "
                "torchvision's detectors normalise images; use GeneralizedRCNNTransform, or add "
                "them."
            )
        heads: Any = getattr(model, "roi_heads", None)
        if heads is not None and (heads.has_mask() or heads.has_keypoint()):
            raise ModelError(
                f"{type(model).__name__} learns masks or keypoints, which the data do not have; "
                "name a detector of boxes, e.g. torchvision:fasterrcnn_resnet50_fpn."
            )
        self.model = model

    def check(self, shape: Sequence[int], num_classes: int) -> None:
        """Train on two images for a moment, and see whether the detector fits the data.

        Args:
            shape: Channels, height and width of one image.
            num_classes: Without background.

        Raises:
            ModelError: If it resizes or pads images (costs would be those of another size), or
                cannot learn the last class.
        """
        images = torch.zeros(2, *shape)
        transform: Any = self.model.transform
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            try:
                found = tuple(transform(list(images))[0].tensors.shape[-2:])
            except Exception as error:  # of the user's own code, in any way
                raise ModelError(
                    f"the detector's transform does not turn a list of images into an ImageList "
                    f"({type(error).__name__}: {' '.join(str(error).split())[:120]}); give it "
                    "torchvision's interface."
                ) from error
            if found != tuple(shape[1:]):
                raise ModelError(
                    f"the detector turns images of {shape[1]} x {shape[2]} pixels into "
                    f"{found[0]} x {found[1]}; set data.image_size to a multiple of 32 that its "
                    "transform keeps (min_size = max_size = image_size)."
                )
            corners = torch.tensor([[0.0, 0.0, shape[2] / 2, shape[1] / 2]])
            target = {"boxes": corners, "labels": torch.tensor([num_classes - 1])}
            try:
                copy.deepcopy(self).train().losses(images, [target, target])
            except Exception as error:  # of the user's own code, in any way
                raise ModelError(
                    f"the detector cannot learn class {num_classes - 1} of 0 .. {num_classes - 1} "
                    f"({type(error).__name__}: {' '.join(str(error).split())[:120]}); it needs "
                    "num_classes + 1 outputs, background first."
                ) from error

    def check_float64(self, image: Tensor) -> None:
        """See whether boxes are decoded and chosen in float64, by which it will be tested.

        Args:
            image: `1 x c x h x w`, float64, as the detector is; it is in eval mode.

        Raises:
            ModelError: If they are not.
        """
        try:
            with torch.no_grad():
                self.detect(image)
        except Exception as error:  # of the user's own code, in any way
            raise ModelError(
                "the detector cannot detect in float64, in which it will be tested "
                f"({type(error).__name__}: {' '.join(str(error).split())[:120]}); let what it "
                "makes follow its input's type: `dtype=x.dtype`, no `.float()`."
            ) from error

    @property
    def two_stage(self) -> bool:
        """Whether it classifies regions that it has proposed itself."""
        return hasattr(self.model, "roi_heads")

    @property
    def decodable(self) -> bool:
        """Whether boxes follow from predictions and fixed anchors alone, so that it exports."""
        from torchvision.models.detection import RetinaNet
        from torchvision.models.detection.ssd import SSD

        return isinstance(self.model, SSD | RetinaNet)

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
        # Anchors take the type of the maps, and decoded boxes that of the predictions: in bfloat16
        # both would be pixels off.
        exact: list[Any] = [self.model.backbone, part]
        if self.two_stage:
            exact.append(self.model.roi_heads.box_predictor)  # type: ignore[union-attr]
        handles = [part.register_forward_hook(lambda _, __, output: seen.append(_flat(output)))]
        handles += [m.register_forward_hook(lambda _, __, output: _float32(output)) for m in exact]
        wanted = [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in targets]
        try:
            found = self.model(list(images), wanted)
        finally:
            for handle in handles:
                handle.remove()
        return torch.stack(list(found.values())).sum(), seen[0]

    def detect(self, images: Tensor) -> list[dict[str, Tensor]]:
        """`boxes`, `scores` and `labels` (from 0) of each image; the network is in eval mode."""
        found = [
            {key: value[each["labels"] > 0] for key, value in each.items()}  # no background
            for each in self.model(list(images))
        ]
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


def _float32(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, dict):
        return type(output)((name, _float32(value)) for name, value in output.items())
    return type(output)(_float32(value) for value in output)


def thaw(model: nn.Module) -> nn.Module:
    """Let all of a detector be trained, in place: what is pruned and quantized must be finetuned.

    Frozen batch norms become ordinary ones with the same statistics, since pruning shifts them, and
    they must be estimated anew.
    """
    from torchvision.ops import FrozenBatchNorm2d

    for name, module in list(model.named_modules()):
        if isinstance(module, FrozenBatchNorm2d):
            like = module.weight
            norm = nn.BatchNorm2d(len(like), module.eps, device=like.device, dtype=like.dtype)
            norm.load_state_dict(module.state_dict(), strict=False)
            model.set_submodule(name, norm)
    return model.requires_grad_(True)
