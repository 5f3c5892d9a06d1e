"""The data sets by name: embedded ones, those torchvision fetches, and folders of one's own."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seernet.config import DataConfig
from seernet.data.coco import list_coco
from seernet.data.digit_scenes import list_digit_scenes
from seernet.data.images import Picture
from seernet.data.listing import Labels, Listing, SplitNames
from seernet.data.tree import list_tree
from seernet.data.voc import CLASSES, list_voc
from seernet.errors import DataError

_LOGGER = logging.getLogger(__name__)
_DOWNLOADS = "data/downloads"


def list_source(config: DataConfig) -> Listing:
    """List the images of the data set that the parameters name, fetching it if need be.

    Raises:
        DataError: If it is not there, and cannot be fetched.
    """
    return _SOURCES[config.name](config)


def _tree(config: DataConfig) -> Listing:
    return list_tree(config.path, config.channels or 3)


def _voc(config: DataConfig) -> Listing:
    return list_voc(config, config.path, config.classes)


def _digits(config: DataConfig) -> Listing:
    """8 x 8 gray images, 1797 of them; values 0..16 become 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.floor(digits.images * (255 / 16) + 0.5).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    splits = np.full(len(labels), "train", dtype="<U6")
    classes = tuple(str(name) for name in digits.target_names)
    return _from_arrays(config, classes, pixels, labels, splits)


def _cifar(config: DataConfig) -> Listing:
    """32 x 32 RGB images: 50,000 to train and 10,000 to test."""
    train, test = _open_cifar(config)
    labels = np.array([*train.targets, *test.targets], dtype=np.int64)
    splits = np.repeat(np.array(["train", "test"]), [len(train.data), len(test.data)])
    pixels = np.concatenate([train.data, test.data])
    return _from_arrays(config, tuple(train.classes), pixels, labels, splits)


def _open_cifar(config: DataConfig) -> tuple[Any, Any]:
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[config.name]
    root = Path(config.path or _DOWNLOADS)
    if root.name == kind.base_folder:  # the unpacked folder itself was named
        root = root.parent
    try:
        return kind(root, train=True), kind(root, train=False)
    except RuntimeError:  # missing, or its checksums are wrong
        _LOGGER.info("fetching %s into %s", config.name, root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        return kind(root, train=True, download=True), kind(root, train=False)
    except (OSError, RuntimeError, EOFError) as error:
        raise DataError(
            f"{config.name} is not in {root} and cannot be fetched ({error}); put {kind.filename} "
            f"(from {kind.url}, MD5 {kind.tgz_md5}) into {root}, or set data.path to a folder "
            f"that holds {kind.base_folder}/."
        ) from error


def _published_voc(config: DataConfig) -> Listing:
    """PASCAL VOC 2007 or 2012, as it is distributed."""
    from torchvision.datasets import VOCDetection

    year = config.name.removeprefix("voc")
    root = Path(config.path or _DOWNLOADS)
    folder = root / "VOCdevkit" / config.name.upper()
    lists = folder / "ImageSets" / "Main"
    parts = ("trainval", "test") if year == "2007" else ("trainval",)
    missing = [part for part in parts if not (lists / f"{part}.txt").is_file()]
    if missing:
        _LOGGER.info("fetching %s into %s", config.name, root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            for part in missing:
                VOCDetection(root, year, part, download=True)
        except (OSError, RuntimeError, EOFError) as error:
            raise DataError(
                f"{config.name} is not in {root} and cannot be fetched ({error}); unpack it so "
                f"that {lists} has {' and '.join(parts)} (.txt), or set data.path."
            ) from error
    return list_voc(config, str(folder), config.classes or CLASSES)


def _from_arrays(
    config: DataConfig,
    classes: tuple[str, ...],
    pixels: NDArray[np.uint8],
    labels: Labels,
    splits: SplitNames,
) -> Listing:
    channels = config.channels or (1 if pixels.ndim == 3 else pixels.shape[-1])
    mode = "L" if channels == 1 else "RGB"

    def read(number: int) -> Picture:
        array = pixels[number]
        image = Image.fromarray(array)
        image = image if image.mode == mode else image.convert(mode)
        return Picture(image, hashlib.sha256(array.tobytes()).digest(), ())

    return Listing(
        name=config.name,
        classes=classes,
        channels=channels,
        labels=labels,
        splits=splits,
        names=[f"image {number}" for number in range(len(labels))],
        read=read,
    )


_SOURCES: dict[str, Callable[[DataConfig], Listing]] = {
    "digits": _digits,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "imagefolder": _tree,
    "digit-scenes": list_digit_scenes,
    "voc": _voc,
    "voc2007": _published_voc,
    "voc2012": _published_voc,
    "coco": list_coco,
}
