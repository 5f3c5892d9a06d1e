"""Three convolutions for 8 x 8 images: small enough to measure every policy many times."""

from __future__ import annotations

from torch import Tensor, nn


class Small(nn.Module):
    """Convolutions of 6, 6 and 9 channels, with max pooling after the second and third."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.conv3 = nn.Conv2d(6, 9, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(9)
        self.relu = nn.ReLU(inplace=True)
        self.shrink = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(9 * 2 * 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `n x c x 8 x 8` to logits `n x num_classes`."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.shrink(self.relu(self.bn2(self.conv2(x))))
        x = self.shrink(self.relu(self.bn3(self.conv3(x))))
        return self.classifier(self.flatten(x))  # type: ignore[no-any-return]


def build(num_classes: int, in_channels: int) -> Small:
    """Build it."""
    return Small(num_classes, in_channels)
