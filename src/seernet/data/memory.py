"""Batches from images that lie decoded on the device: a few whole-batch operations each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seernet.data.loader import (
    Augment,
    Batch,
    Loader,
    Normalizer,
    batch_count,
    generator,
)


@dataclass(frozen=True)
class DecodedImages:
    """The `n` images of a split, decoded, on the device; see `Images`.

    Attributes:
        pixels: uint8, `n x C x H x W`.
        targets: int64 labels, `n`.
        normalize: With the statistics of the train split.
    """

    pixels: Tensor
    targets: Tensor
    normalize: Normalizer

    @property
    def labels(self) -> Sequence[int]:
        """Class indices, one for each image."""
        labels: list[int] = self.targets.tolist()
        return labels

    def loader(self, batch_size: int, augment: Augment | None, seed: int) -> Loader:
        """Return batches; see `Dataset.loader`."""
        return DecodedLoader(self, batch_size, augment, seed)

    def take(self, positions: Sequence[int]) -> Tensor:
        """Return the images at these positions, normalised, not augmented."""
        chosen = torch.tensor(positions, device=self.pixels.device)
        return self.normalize(self.pixels.index_select(0, chosen))


@dataclass(frozen=True)
class DecodedLoader:
    """Batches of decoded images; see `Loader`.

    All random numbers of an epoch are drawn at once on the CPU, so they are the same on every
    device, and no batch waits for the device.
    """

    images: DecodedImages
    batch_size: int
    augment: Augment | None
    seed: int

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return batch_count(len(self.images.targets), self.batch_size, self.augment is not None)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; see `Loader.epoch`."""
        return self._plain() if self.augment is None else self._training(self.augment, number)

    def _plain(self) -> Iterator[Batch]:
        pixels, targets = self.images.pixels, self.images.targets
        for start in range(0, len(targets), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield self.images.normalize(pixels[part]), targets[part]

    def _training(self, augment: Augment, number: int) -> Iterator[Batch]:
        pixels, targets = self.images.pixels, self.images.targets
        count, device = len(targets), targets.device
        stream = generator(self.seed, number)
        order = torch.randperm(count, generator=stream).to(device)
        flips = torch.rand((count, 1, 1, 1), generator=stream).to(device) < 0.5
        shifts = torch.randint(2 * augment.crop_padding + 1, (2, count), generator=stream)
        shifts = shifts.to(device)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            part = slice(start, start + self.batch_size)
            batch = pixels.index_select(0, order[part])
            if augment.flip:
                batch = torch.where(flips[part], batch.flip(3), batch)
            batch = self.images.normalize(batch)
            if augment.crop_padding:
                batch = shift(batch, shifts[:, part], augment.crop_padding)
            batch = batch.clone(memory_format=torch.contiguous_format)
            yield batch, targets.index_select(0, order[part])


def shift(images: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Pad with zeros (the mean, of normalised images), then crop each image at its own place.

    Every possible crop is a view into the padded batch, so one gather copies only what is kept.

    Args:
        images: `b x C x H x W`.
        shifts: `2 x b` rows and columns of the crops' upper left corners, in 0 .. 2 * padding.
        padding: Pixels on each side.

    Returns:
        `b x C x H x W`.
    """
    count, _, height, width = images.shape
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    # b x rows x columns x C x H x W -> b x rows x columns x H x W x C
    crops = padded.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)
    each = torch.arange(count, device=images.device)
    return crops[each, shifts[0], shifts[1]].permute(0, 3, 1, 2)
