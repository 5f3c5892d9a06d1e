"""The seam between images and training: augmentation, batches, and how they are seeded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from seernet.data.info import DatasetInfo

Target: TypeAlias = dict[str, Tensor]
"""What is in one image: `boxes` float32 `k x 4` (corners, in pixels), `labels` int64 `k` and
`crowd` bool `k` (see `Boxes`)."""

Targets: TypeAlias = Tensor | list[Target]
"""Of a batch: labels, int64 `b`, or for detection one `Target` an image."""

Batch: TypeAlias = tuple[Tensor, Targets]


@dataclass(frozen=True)
class Augment:
    """Random changes of training images.

    Attributes:
        crop_padding: Pixels of padding (with the mean) before a random crop of the same size.
            Image files get a random resized crop instead.
        flip: Whether to mirror half of the images left to right.
    """

    crop_padding: int = 0
    flip: bool = False


class Loader(Protocol):
    """Batches of one split."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; equal numbers give equal batches.

        Args:
            number: The epoch, from 0. It alone decides (with the loader's seed) on order and
                augmentation, so an interrupted training resumes as if it had not been.

        Yields:
            Normalised images, float32 `b x C x H x W` on the device, contiguous as
            networks that flatten by `view` expect, and what is in them; see `Targets`.

        Raises:
            DataError: If an image file vanished or broke since it was prepared.
        """


class Images(Protocol):
    """The images of one split, wherever they are kept."""

    @property
    def labels(self) -> Sequence[int]:
        """Class indices, one for each image."""

    def loader(self, batch_size: int, augment: Augment | None, seed: int) -> Loader:
        """Return batches; see `Dataset.loader`."""

    def take(self, positions: Sequence[int]) -> Tensor:
        """Return the images at these positions, normalised, not augmented, on the device."""


@dataclass(frozen=True)
class Normalizer:
    """Bytes to zero mean and unit variance: (x / 255 - mean) / std, on the device."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, info: DatasetInfo, device: torch.device) -> Normalizer:
        """Take the statistics of a data set; both tensors are 1 x C x 1 x 1, in 0..255."""
        mean, std = (
            (torch.tensor(values, dtype=torch.float64) * 255).float().view(1, -1, 1, 1).to(device)
            for values in (info.mean, info.std)
        )
        return cls(mean, std)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise uint8 images, `b x C x H x W`; the result is float32, of the same layout."""
        return images.float().sub_(self.mean).div_(self.std)


def generator(*key: int) -> torch.Generator:
    """Return a generator whose stream belongs to this key (seed, epoch, id) alone."""
    text = "/".join(str(part) for part in key).encode()
    state = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
    return torch.Generator().manual_seed(state)


def batch_count(images: int, batch_size: int, training: bool) -> int:
    """Count the batches: training drops an incomplete last one, unless it is the only one."""
    if training:
        return max(1, images // batch_size)
    return -(-images // batch_size)
