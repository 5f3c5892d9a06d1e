"""Batches of images with boxes; see `Loader`.

Images are stretched to the size that the network sees. Training zooms in and out, shifts, changes
brightness and colors, and perhaps flips; a box goes with its image, as long as enough of it is left
to see. What happens to an image depends on seed and epoch alone, never on the number of workers.

Source:
    Liu et al. (2016), SSD: Single Shot MultiBox Detector, sec. 2.2 and 3.6 (zooming and colors); a
    whole batch is sampled at once, on the device, instead of one crop after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from seernet.data.files import Item, collate
from seernet.data.images import UnreadableImageError, read_image, stretch, to_array
from seernet.data.info import DatasetInfo
from seernet.data.loader import Augment, Batch, Loader, Normalizer, Target, batch_count, generator
from seernet.errors import DataError

_GROUND = 0.486  # what fills the border of an image that is zoomed out
_ZOOM = 2.0  # in or out, at most
_STRETCH = 1.3  # width against height, at most
_LEFT = 0.3  # of a box's area that must be left in the image
_SMALLEST = 1.0  # pixels: sides of a box
_CONTRAST, _BRIGHTNESS = 0.3, 0.15  # largest relative and absolute changes of a color


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
        return torch.cat([batch for batch, _ in self.read(positions, 64)])

    def read(self, order: Sequence[int], batch_size: int) -> Iterator[tuple[Tensor, list[Target]]]:
        """Decode images in this order and yield them as batches on the device.

        Raises:
            DataError: If a file vanished or broke since it was prepared.
        """
        normalize = Normalizer.of(self.info, self.device)
        batches: Iterable[tuple[Tensor, Tensor] | str] = DataLoader(
            _Decoder(self),
            batch_size=batch_size,
            sampler=order,
            num_workers=self.workers if self.pixels is None else 0,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else the global one would advance
        )
        for batch in batches:
            if isinstance(batch, str):
                raise DataError(batch)
            pixels, places = batch
            here = [
                {key: value.to(self.device) for key, value in self.targets[place].items()}
                for place in places.tolist()
            ]
            yield normalize(pixels.to(self.device, non_blocking=True)).contiguous(), here


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
        count = len(self.images.rows)
        if self.augment is None:
            yield from self.images.read(range(count), self.batch_size)
            return
        stream = generator(self.seed, number)
        order = torch.randperm(count, generator=stream)[: len(self) * self.batch_size]
        draws = Draws.of(len(order), self.augment.flip, stream)
        start = 0
        for images, targets in self.images.read(order.tolist(), self.batch_size):
            part = draws.part(start, len(images)).to(images.device)
            start += len(images)
            yield distorted(images, part), moved(targets, part, images.shape[-2:])


@dataclass(frozen=True)
class Draws:
    """What is drawn for `b` images.

    Attributes:
        scale: `b x 2`, across and down: the part of the image that is seen, above 1 for zooming
            out; negative across for a flip.
        shift: `b x 2`: its centre, in half sides of the image.
        gain: `b x 3 x 1 x 1`: by which colors are multiplied.
        offset: The same, what is added.
    """

    scale: Tensor
    shift: Tensor
    gain: Tensor
    offset: Tensor

    @classmethod
    def of(cls, count: int, flip: bool, stream: torch.Generator) -> Draws:
        """Draw for some images."""

        def uniform(*shape: int) -> Tensor:
            return 2.0 * torch.rand(count, *shape, generator=stream) - 1.0

        zoom, stretch = _ZOOM ** uniform(1), _STRETCH ** (0.5 * uniform(1))
        scale = torch.cat([zoom * stretch, zoom / stretch], dim=1)
        shift = uniform(2) * (1.0 - scale).abs()
        mirrored = flip * (uniform() < 0.0)
        scale[:, 0] *= torch.where(mirrored.bool(), -1.0, 1.0)
        gain = (1.0 + _CONTRAST * uniform(1, 1, 1)) * (1.0 + 0.3 * _CONTRAST * uniform(3, 1, 1))
        return cls(scale, shift, gain, _BRIGHTNESS * uniform(1, 1, 1))

    def part(self, start: int, count: int) -> Draws:
        """Those of some images."""
        return Draws(*(value[start : start + count] for value in vars(self).values()))

    def to(self, device: torch.device) -> Draws:
        """The same on a device."""
        return Draws(*(value.to(device, non_blocking=True) for value in vars(self).values()))


def distorted(images: Tensor, draws: Draws) -> Tensor:
    """Images in [0, 1], `b x c x h x w`, seen as drawn."""
    matrix = torch.cat([torch.diag_embed(draws.scale), draws.shift[..., None]], dim=2)  # b x 2 x 3
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    seen = F.grid_sample(images - _GROUND, grid, align_corners=False) + _GROUND
    gain = draws.gain if images.shape[1] == 3 else draws.gain.mean(dim=1, keepdim=True)
    return (seen * gain + draws.offset).clamp_(0.0, 1.0)


def moved(targets: Sequence[Target], draws: Draws, size: Sequence[int]) -> list[Target]:
    """The boxes that are learned of such images, `size` (height, width), where they are seen."""
    counts = [len(target["labels"]) for target in targets]
    boxes, labels, crowd = (
        torch.cat([target[key] for target in targets]) for key in ("boxes", "labels", "crowd")
    )
    image = torch.repeat_interleave(torch.tensor(counts, device=boxes.device))
    extent = boxes.new_tensor([size[1], size[0]])  # width, height
    scale, shift = draws.scale[image], draws.shift[image]
    ends = ((2.0 * boxes.view(-1, 2, 2) / extent - 1.0) - shift[:, None]) / scale[:, None]
    ends = (ends.sort(dim=1).values + 1.0) / 2.0 * extent
    inside = ends.minimum(extent).clamp_min(0.0)
    sides = inside[:, 1] - inside[:, 0]
    whole = (ends[:, 1] - ends[:, 0]).prod(dim=1)
    kept = (sides >= _SMALLEST).all(dim=1) & (sides.prod(dim=1) >= _LEFT * whole) & ~crowd
    return [
        {
            "boxes": inside[mine].flatten(1),
            "labels": labels[mine],
            "crowd": crowd[mine],
        }
        for mine in (kept & (image == number) for number in range(len(targets)))
    ]


@dataclass(frozen=True)
class _Decoder(TorchDataset[Item]):
    """What a worker process holds: item `i` is an image and `i`, or a complaint.

    Boxes stay behind: each tensor from a worker is an open file while its batch is in use.
    """

    images: SceneImages

    def __len__(self) -> int:
        return len(self.images.rows)

    def __getitem__(self, index: int) -> Item:
        if self.images.pixels is not None:
            return self.images.pixels[index], index
        info, (name, _, _) = self.images.info, self.images.rows[index]
        path = Path(info.root or "") / name
        try:
            picture = read_image(path, info.channels)
        except UnreadableImageError as error:
            return (
                f"image {path} cannot be read ({error}) but could when it was prepared; "
                "restore it, or run the prepare stage again."
            )
        pixels = to_array(stretch(picture.image, info.image_size))
        return torch.from_numpy(pixels.copy()), index
