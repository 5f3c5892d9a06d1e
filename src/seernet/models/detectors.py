"""Detectors by name: torchvision's, and Faster R-CNN on ResNet-18."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from seernet.errors import ModelError


def fasterrcnn_resnet18(num_classes: int, image_size: int, proposals: int = 300) -> nn.Module:
    """Faster R-CNN on ResNet-18 with a feature pyramid.

    Args:
        num_classes: Without background.
        image_size: Side of the image, in pixels.
        proposals: Regions that the second stage looks at.
    """
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    model: nn.Module = detection.FasterRCNN(
        backbone,
        num_classes + 1,
        min_size=image_size,
        max_size=image_size,
        rpn_post_nms_top_n_test=proposals,
    )
    return model


def torchvision_detector(
    name: str, num_classes: int, image_size: int, arguments: dict[str, Any]
) -> nn.Module:
    """Build one of torchvision's detectors, without weights.

    Raises:
        ModelError: If it does not take the arguments, or images of that size.
    """
    from torchvision import models

    builder = models.get_model_builder(name)
    given: dict[str, Any] = {"weights": None, "num_classes": num_classes + 1}
    if "weights_backbone" in inspect.signature(builder).parameters:
        given["weights_backbone"] = None
    if not name.startswith("ssd"):
        given |= {"min_size": image_size, "max_size": image_size}
    try:
        model: nn.Module = builder(**(given | arguments))
    except Exception as error:  # builders check their arguments, and fetch weights, in many ways
        raise ModelError(
            f"torchvision's {name!r} cannot be built with {arguments}: {error}; check "
            "model.arguments (backbone weights that cannot be fetched: set weights_backbone: null)."
        ) from error
    size = getattr(model.transform, "fixed_size", None)  # of SSD: width, height
    if size is not None and tuple(size) != (image_size, image_size):
        raise ModelError(
            f"{name} takes images of {size[0]} x {size[1]} pixels, the data set has {image_size}; "
            f"set data.image_size: {size[0]}."
        )
    return model
