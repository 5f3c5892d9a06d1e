"""A small SSD for small images: a residual backbone, three feature maps, separable heads.

Source:
    Liu et al. (2016), SSD; the heads are those of SSDLite (Sandler et al., 2018, sec. 6.2), as
    torchvision has them.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead

from seernet.models.resnet20 import BasicBlock

_RATIOS = (2.0, 0.5)


class Backbone(nn.Module):
    """Feature maps at an eighth, a sixteenth and a thirty-second of the image."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width, 4 * width)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.ModuleList(
            BasicBlock(before, after, 2) for before, after in pairwise(widths)
        )
        self.out_channels = list(widths[2:])

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Map `b x c x h x w` to feature maps by name."""
        x = self.blocks[0](self.stem(x))
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for index in range(1, len(self.blocks)):
            x = self.blocks[index](x)
            maps[str(index)] = x
        return maps


def small_ssd(num_classes: int, in_channels: int, image_size: int, width: int = 16) -> nn.Module:
    """Build it.

    Args:
        num_classes: Without background.
        in_channels: Of the image.
        image_size: Side of the image, in pixels.
        width: Channels of the first layer.
    """
    backbone = Backbone(in_channels, width)
    anchors = DefaultBoxGenerator(
        [[ratio for ratio in _RATIOS if ratio > 1.0]] * len(backbone.out_channels),
        scales=[0.14, 0.25, 0.36, 0.48],
    )
    norm: Any = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.1)
    head = SSDLiteHead(
        backbone.out_channels, anchors.num_anchors_per_location(), num_classes + 1, norm
    )
    middle = [0.5] * in_channels
    model: nn.Module = SSD(
        backbone,
        anchors,
        (image_size, image_size),
        num_classes + 1,
        head=head,
        image_mean=middle,
        image_std=[0.25] * in_channels,
        score_thresh=0.02,
        topk_candidates=100,
        detections_per_img=50,
    )
    return model
