"""An opened prepared folder: loaders over its splits, and images to calibrate with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from seernet.data.files import FileImages
from seernet.data.info import SPLITS, DatasetInfo, Split
from seernet.data.loader import Augment, Images, Loader, Normalizer, generator
from seernet.data.memory import DecodedImages
from seernet.data.scenes import SceneImages
from seernet.data.storage import read_decoded, read_paths, read_targets


class Dataset:
    """A prepared data set; a split is read when it is first asked for."""

    def __init__(self, folder: Path, info: DatasetInfo, device: torch.device, workers: int) -> None:
        """Use `open` instead."""
        self.info = info
        self._folder = folder
        self._device = device
        self._workers = workers
        self._splits: dict[Split, Images] = {}

    @classmethod
    def open(cls, folder: Path, device: torch.device, workers: int) -> Dataset:
        """Open what `prepare` wrote.

        Args:
            folder: The prepared folder.
            device: Where batches go; decoded images live there.
            workers: Processes that decode image files; 0 decodes in this one.

        Raises:
            ArtifactError: If the folder is missing or damaged.
        """
        return cls(Path(folder), DatasetInfo.load(Path(folder)), device, workers)

    def loader(
        self, split: Split, batch_size: int, *, augment: Augment | None = None, seed: int = 0
    ) -> Loader:
        """Return the batches of a split.

        Args:
            split: `train`, `search` or `test`.
            batch_size: Images in a batch.
            augment: Given, the loader is one for training: shuffled in each epoch, augmented,
                without an incomplete last batch (unless it is the only one). None: all images,
                in order, as they are.
            seed: With the epoch's number, decides on order and augmentation.

        Raises:
            ArtifactError: If the split's file is missing or damaged.
        """
        return self._images(split).loader(batch_size, augment, seed)

    def subset(self, split: Split, count: int, seed: int) -> Tensor:
        """Return images to calibrate with: all classes alike, no augmentation.

        Args:
            split: `train`, `search` or `test`.
            count: Number of images; all of the split, if it has fewer.
            seed: Decides which images.

        Returns:
            Normalised float32 images, `count x C x H x W`, on the device.

        Raises:
            ArtifactError: If the split's file is missing or damaged.
            DataError: If an image file vanished or broke since it was prepared.
        """
        images = self._images(split)
        return images.take(balanced(images.labels, count, seed))

    def _images(self, split: Split) -> Images:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if split not in self._splits:
            self._splits[split] = self._read(split)
        return self._splits[split]

    def _read(self, split: Split) -> Images:
        if self.info.task == "detection":
            return self._read_scenes(split)
        if self.info.storage == "files":
            rows = read_paths(self._folder, self.info, split)
            return FileImages(self.info, rows, self._device, self._workers)
        pixels, targets = read_decoded(self._folder, self.info, split, self._device)
        return DecodedImages(pixels, targets, Normalizer.of(self.info, self._device))

    def _read_scenes(self, split: Split) -> Images:
        targets = read_targets(self._folder, self.info, split)
        if self.info.storage == "files":
            rows, pixels = read_paths(self._folder, self.info, split), None
        else:
            pixels, labels = read_decoded(self._folder, self.info, split, torch.device("cpu"))
            rows = [("", label, place) for place, label in enumerate(labels.tolist())]
        return SceneImages(self.info, rows, targets, pixels, self._device, self._workers)


def balanced(labels: Sequence[int], count: int, seed: int) -> list[int]:
    """Choose positions so that classes differ by at most one, as long as they last.

    Args:
        labels: `n` class indices.
        count: Positions to choose, at most `n` of them.
        seed: Decides which.

    Returns:
        The positions: a random image of every class, then another of every class, and so on.
    """
    shuffled = torch.randperm(len(labels), generator=generator(seed)).tolist()
    seen: dict[int, int] = {}
    ranked = []
    for position in shuffled:
        rank = seen.get(labels[position], 0)
        seen[labels[position]] = rank + 1
        ranked.append((rank, position))
    ranked.sort(key=lambda pair: pair[0])  # stable: within a rank the order stays random
    return [position for _, position in ranked[:count]]
