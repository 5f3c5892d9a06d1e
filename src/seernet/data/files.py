"""Batches from image files, decoded by worker processes; see `Loader`.

Training takes a random resized crop (scale 0.25 to 1) and perhaps a flip; everything else takes
the centre, the shorter side being 256/224 of the crop. What happens to an image depends on seed,
epoch and id alone, never on the number of workers.

Source:
    Szegedy et al. (2015), "Going Deeper with Convolutions", sec. 6 (the crop); the evaluation
    geometry is that of torchvision's reference training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from seernet.data.images import UnreadableImageError, read_image, to_array
from seernet.data.info import DatasetInfo
from seernet.data.loader import (
    Augment,
    Batch,
    Loader,
    Normalizer,
    batch_count,
    generator,
)
from seernet.errors import DataError

_RESIZE = 256 / 224
_SCALE = (0.25, 1.0)

Item: TypeAlias = tuple[Tensor, int] | str


@dataclass(frozen=True)
class FileImages:
    """The image files of a split; see `Images`.

    Attributes:
        info: Root, channels, image size and statistics.
        rows: For each image its path below the root, label and id.
        device: Where batches go.
        workers: Processes that decode; 0 decodes in this one.
    """

    info: DatasetInfo
    rows: Sequence[tuple[str, int, int]]
    device: torch.device
    workers: int

    @property
    def labels(self) -> Sequence[int]:
        """Class indices, one for each image."""
        return [label for _, label, _ in self.rows]

    def loader(self, batch_size: int, augment: Augment | None, seed: int) -> Loader:
        """Return batches; see `Dataset.loader`."""
        return FileLoader(self, batch_size, augment, seed)

    def take(self, positions: Sequence[int]) -> Tensor:
        """Return the images at these positions, normalised, not augmented."""
        decoder = _Decoder(self.info, self.rows, None, ())
        return torch.cat([batch for batch, _ in self.read(decoder, positions, 64)])

    def read(self, decoder: _Decoder, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """Decode images in this order and yield them as normalised batches on the device.

        Raises:
            DataError: If a file vanished or broke since it was prepared.
        """
        normalize = Normalizer.of(self.info, self.device)
        batches: Iterable[tuple[Tensor, Tensor] | str] = DataLoader(
            decoder,
            batch_size=batch_size,
            sampler=order,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else the global one would advance
        )
        for batch in batches:
            if isinstance(batch, str):
                raise DataError(batch)
            pixels, labels = (part.to(self.device, non_blocking=True) for part in batch)
            yield normalize(pixels).contiguous(), labels


@dataclass(frozen=True)
class FileLoader:
    """Batches of image files; see `Loader`."""

    images: FileImages
    batch_size: int
    augment: Augment | None
    seed: int

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return batch_count(len(self.images.rows), self.batch_size, self.augment is not None)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; see `Loader.epoch`."""
        info, rows = self.images.info, self.images.rows
        order = list(range(len(rows)))
        if self.augment is not None:
            order = torch.randperm(len(rows), generator=generator(self.seed, number)).tolist()
            order = order[: len(self) * self.batch_size]
        decoder = _Decoder(info, rows, self.augment, (self.seed, number))
        return self.images.read(decoder, order, self.batch_size)


@dataclass(frozen=True)
class _Decoder(TorchDataset[Item]):
    """What a worker process holds: item `i` is uint8 `C x H x W` and a label, or a complaint.

    A complaint is returned, because an exception that crosses a process boundary arrives wrapped
    in a traceback. `key` is seed and epoch.
    """

    info: DatasetInfo
    rows: Sequence[tuple[str, int, int]]
    augment: Augment | None
    key: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        name, label, identity = self.rows[index]
        path = Path(self.info.root or "") / name
        try:
            image = read_image(path, self.info.channels).image
        except UnreadableImageError as error:
            return (
                f"image {path} cannot be read ({error}) but could when it was prepared; "
                "restore it, or run the prepare stage again."
            )
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the default generator
            torch.set_rng_state(generator(*self.key, identity).get_state())
            image = self._transform(image)
        return torch.from_numpy(to_array(image).copy()), label

    @cached_property
    def _transform(self) -> Any:
        from torchvision.transforms import v2

        height, width = self.info.image_size
        if self.augment is None:
            shorter = round(min(height, width) * _RESIZE)
            return v2.Compose([v2.Resize(shorter), v2.CenterCrop((height, width))])
        crop = v2.RandomResizedCrop((height, width), scale=_SCALE)
        return v2.Compose([crop, v2.RandomHorizontalFlip(0.5 if self.augment.flip else 0.0)])


def collate(items: list[Item]) -> tuple[Tensor, Tensor] | str:
    """A batch of images and of the numbers beside them, or the first complaint."""
    good = []
    for item in items:
        if isinstance(item, str):
            return item
        good.append(item)
    pixels, labels = zip(*good, strict=True)
    return torch.stack(pixels), torch.tensor(labels, dtype=torch.int64)
