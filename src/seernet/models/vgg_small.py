"""VGG-small: the six-convolution network of the CIFAR quantization literature.

Source:
    Zhang et al. (2018), LQ-Nets, sec. 5.1; Esser et al. (2020), LSQ.
"""

from __future__ import annotations

from torch import Tensor, nn


class VGGSmall(nn.Module):
    """Pairs of 3 x 3 convolutions of 128, 256 and 512 channels, each halved by max pooling."""

    def __init__(self, num_classes: int, in_channels: int, width: int, image_size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in range(3):
            for _ in range(2):
                out = width * 2**stage
                layers += [
                    nn.Conv2d(channels, out, 3, padding=1, bias=False),
                    nn.BatchNorm2d(out),
                    nn.ReLU(inplace=True),
                ]
                channels = out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels * (image_size // 8) ** 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `n x c x h x w` to logits `n x num_classes`."""
        return self.classifier(self.flatten(self.features(x)))  # type: ignore[no-any-return]


def vgg_small(
    num_classes: int, in_channels: int = 3, width: int = 128, image_size: int = 32
) -> VGGSmall:
    """Build a VGG-small for square images of `image_size` pixels, at least 8."""
    return VGGSmall(num_classes, in_channels, width, image_size)
