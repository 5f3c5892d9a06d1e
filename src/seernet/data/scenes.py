"""Batches of images with boxes; see `Loader`.

Images are stretched to the size that the network sees. Training distorts colors, zooms out, crops
around boxes, and perhaps flips, as SSD does. What happens to an image depends on seed, epoch and id
alone, never on the number of workers.

Source:
    Liu et al. (2016), SSD: Single Shot MultiBox Detector, sec. 2.2 and 3.6, as torchvision has it.
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
from seernet.data.loader import Augment, Batch, Loader, Normalizer, Target, batch_count, generator
from seernet.errors import DataError

_GROUND = 124  # of 255: what fills the border of an image that is zoomed out
_FARTHEST = 3.0  # times the image's side
_SMALLEST = 1.0  # pixels: sides of a box that is left after cropping

_Item: TypeAlias = tuple[Tensor, Target] | str


@dataclass(frozen=True)
class SceneImages:
    """The images of a split with their boxes; see `Images`.

    Attributes:
        info: The data set.
        rows: For each image its path below the root, stratification label and id.
        targets: The boxes of each image, in pixels of `info.image_size`.
        pixels: uint8 `n x C x H x W`, on the CPU, or None where images are read from files.
        device: Where batches go.
        workers: Processes that decode; 0 decodes in this one.
    """

    info: DatasetInfo
    rows: Sequence[tuple[str, int, int]]
    targets: Sequence[Target]
    pixels: Tensor | None
    device: torch.device
    workers: int

    @property
    def labels(self) -> Sequence[int]:
        """One class of each image, the rarest in it."""
        return [label for _, label, _ in self.rows]

    def loader(self, batch_size: int, augment: Augment | None, seed: int) -> Loader:
        """Return batches; see `Dataset.loader`."""
        return SceneLoader(self, batch_size, augment, seed)

    def take(self, positions: Sequence[int]) -> Tensor:
        """Return the images at these positions, normalised, not augmented."""
        decoder = _Decoder(self, None, ())
        return torch.cat([batch for batch, _ in self.read(decoder, positions, 64)])

    def read(self, decoder: _Decoder, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """Decode images in this order and yield them as batches on the device.

        Raises:
            DataError: If a file vanished or broke since it was prepared.
        """
        normalize = Normalizer.of(self.info, self.device)
        batches: Iterable[tuple[Tensor, list[Target]] | str] = DataLoader(
            decoder,
            batch_size=batch_size,
            sampler=order,
            num_workers=self.workers if self.pixels is None else 0,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else the global one would advance
        )
        for batch in batches:
            if isinstance(batch, str):
                raise DataError(batch)
            pixels, targets = batch
            moved = [
                {key: value.to(self.device, non_blocking=True) for key, value in target.items()}
                for target in targets
            ]
            yield normalize(pixels.to(self.device, non_blocking=True)).contiguous(), moved


@dataclass(frozen=True)
class SceneLoader:
    """Batches of images with boxes; see `Loader`."""

    images: SceneImages
    batch_size: int
    augment: Augment | None
    seed: int

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return batch_count(len(self.images.rows), self.batch_size, self.augment is not None)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; see `Loader.epoch`."""
        order = list(range(len(self.images.rows)))
        if self.augment is not None:
            order = torch.randperm(len(order), generator=generator(self.seed, number)).tolist()
            order = order[: len(self) * self.batch_size]
        decoder = _Decoder(self.images, self.augment, (self.seed, number))
        return self.images.read(decoder, order, self.batch_size)


@dataclass(frozen=True)
class _Decoder(TorchDataset[_Item]):
    """What a worker process holds: item `i` is an image and its boxes, or a complaint.

    `key` is seed and epoch.
    """

    images: SceneImages
    augment: Augment | None
    key: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images.rows)

    def __getitem__(self, index: int) -> _Item:
        target = self.images.targets[index]
        name, _, identity = self.images.rows[index]
        if self.images.pixels is not None:
            pixels = self.images.pixels[index]
        else:
            path = Path(self.images.info.root or "") / name
            try:
                picture = read_image(path, self.images.info.channels)
            except UnreadableImageError as error:
                return (
                    f"image {path} cannot be read ({error}) but could when it was prepared; "
                    "restore it, or run the prepare stage again."
                )
            pixels = torch.from_numpy(to_array(picture.image).copy())
        if self.augment is None:
            return self._stretched(pixels), target
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the default generator
            torch.set_rng_state(generator(*self.key, identity).get_state())
            return self._augmented(pixels, target)

    def _stretched(self, pixels: Tensor) -> Tensor:
        from torchvision.transforms.v2 import functional

        size = list(self.images.info.image_size)
        if list(pixels.shape[1:]) == size:
            return pixels
        stretched: Tensor = functional.resize(pixels, size, antialias=True)
        return stretched

    def _augmented(self, pixels: Tensor, target: Target) -> tuple[Tensor, Target]:
        from torchvision import tv_tensors

        height, width = pixels.shape[1:]
        learned = ~target["crowd"]
        limits = torch.tensor(self.images.info.image_size, dtype=torch.float32)
        factors = (torch.tensor([height, width]) / limits)[[1, 0, 1, 0]]
        boxes = tv_tensors.BoundingBoxes(
            target["boxes"][learned] * factors,
            format="XYXY",
            canvas_size=(height, width),
        )
        labels = target["labels"][learned]
        image, boxes, labels = self._transform(tv_tensors.Image(pixels), boxes, labels)
        corners = torch.as_tensor(boxes).reshape(-1, 4)
        kept = (corners[:, 2:] - corners[:, :2] >= _SMALLEST).all(dim=1)
        found = {
            "boxes": corners[kept].float(),
            "labels": labels[kept],
            "crowd": torch.zeros(int(kept.sum()), dtype=torch.bool),
        }
        return torch.as_tensor(image), found

    @cached_property
    def _transform(self) -> Any:
        from torchvision.transforms import v2

        color = self.images.info.channels == 3
        flip = self.augment is not None and self.augment.flip
        return v2.Compose(
            [
                *([v2.RandomPhotometricDistort(p=0.5)] if color else []),
                v2.RandomZoomOut(fill=_GROUND, side_range=(1.0, _FARTHEST)),
                v2.RandomIoUCrop(),
                v2.Resize(list(self.images.info.image_size), antialias=True),
                *([v2.RandomHorizontalFlip(0.5)] if flip else []),
            ]
        )


def _collate(items: list[_Item]) -> tuple[Tensor, list[Target]] | str:
    good = []
    for item in items:
        if isinstance(item, str):
            return item
        good.append(item)
    pixels, targets = zip(*good, strict=True)
    return torch.stack(pixels), list(targets)
