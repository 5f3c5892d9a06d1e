"""The prepare stage: list, divide, verify completely, then write, all or nothing.

Mean and standard deviation are those of the train split alone, over pixels in [0, 1], from exact
integer sums, so they do not depend on the order of summation.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from seernet.config import DataConfig
from seernet.data.info import SPLITS, DatasetInfo, Split
from seernet.data.listing import Listing
from seernet.data.sources import list_source
from seernet.data.splits import hold_out, shortages
from seernet.data.storage import write_prepared
from seernet.data.survey import Survey, native_size, survey
from seernet.errors import DataError

_LOGGER = logging.getLogger(__name__)

MEMORY_LIMIT_BYTES = 1_500_000_000
MEMORY_LIMIT_SIDE = 64


@dataclass(frozen=True)
class _Plan:
    storage: Literal["memory", "files"]
    size: tuple[int, int]
    resize: bool


def prepare(
    config: DataConfig, seed: int, output: Path, batch_size: int, *, progress: bool = True
) -> DatasetInfo:
    """Read or fetch the data set, verify all of it, fix the splits, and write `output`.

    The three splits are disjoint. Those that the source has are kept (see `sources` and `tree`);
    the others are held out of its training images, stratified by class and fixed by `seed`:
    first the test split, `test_fraction` of them, then `search_fraction` of what remains. Equal
    inputs give byte-identical files. `output` is replaced when everything is done, and untouched
    when something is wrong.

    Args:
        config: The section `data`.
        seed: Decides which images are held out.
        output: Folder to write: `dataset.json` and, for each split, `<split>.safetensors`
            (`images` uint8 n x C x H x W, `labels` and `ids` int64 n) or `<split>.csv`
            (`path`, `label`, `id`). An id is an image's place in the source's listing. For
            detection also `<split>.boxes.safetensors`; see `storage`.
        batch_size: Images a step of training; the train split must fill one.
        progress: Whether to draw a progress bar on stderr.

    Returns:
        What was written into `dataset.json`.

    Raises:
        DataError: If anything is wrong with the data; one line for each kind of defect, naming
            files, with the remedy.
    """
    listing = list_source(config)
    _check_normalisation(config, listing)
    plan = _plan(config, listing)
    fractions = {"test": config.test_fraction, "search": config.search_fraction}
    missing = [name for name in fractions if name not in listing.splits]
    complaints = list(listing.complaints)
    if listing.boxes is None:
        complaints += shortages(listing.labels, listing.splits, listing.classes, missing)
    else:
        complaints += listing.boxes.shortages(listing.splits, listing.classes, missing)
        complaints += listing.boxes.unknown(listing.classes)
    splits = hold_out(listing.labels, listing.splits, fractions, seed)
    if listing.boxes is not None:
        splits = listing.boxes.spread(splits, len(listing.classes), missing, seed)
        complaints += listing.boxes.empty(splits)
    listing = listing.divided(splits)
    complaints += _too_small(listing, batch_size)
    found = survey(
        listing,
        plan.size,
        resize=plan.resize,
        keep=plan.storage == "memory",
        progress=progress,
    )
    complaints += found.complaints
    if complaints:
        raise DataError(_report(config, complaints))
    info = _describe(config, listing, plan, found)
    write_prepared(output, info, listing, found.pixels)
    for warning in info.warnings:
        _LOGGER.warning("%s: %s", config.name, warning)
    return info


def _check_normalisation(config: DataConfig, listing: Listing) -> None:
    if listing.boxes is not None and (config.mean or config.std):
        raise DataError(
            "detectors normalise images themselves, so data.mean and data.std have no use; remove "
            "them (torchvision's detectors take image_mean and image_std in model.arguments)."
        )
    channels = listing.channels
    for name, values in (("mean", config.mean), ("std", config.std)):
        if values is not None and len(values) != channels:
            raise DataError(
                f"data.{name} has {len(values)} numbers, the images have {channels} channels; give "
                "one a channel, or set data.channels."
            )


def _plan(config: DataConfig, listing: Listing) -> _Plan:
    """Decide where the images are kept, and their size."""
    side = config.image_size
    size = (side, side) if side else native_size(listing)
    if size is None:
        complaints = [*listing.complaints, f"none of the {len(listing)} images can be read."]
        raise DataError(_report(config, complaints))
    if listing.boxes is not None and size[0] != size[1]:
        raise DataError(
            f"detectors take square images, and these are {size[0]} x {size[1]} (height x width); "
            "set data.image_size, e.g. to 320: they are stretched to it."
        )
    size_bytes = len(listing) * listing.channels * size[0] * size[1]
    # Boxes are scaled with their image, whereas images alone are better cropped anew each time.
    stretched = listing.boxes is not None
    small = max(size) <= MEMORY_LIMIT_SIDE or listing.root is None or stretched
    storage = config.storage
    if storage == "auto":
        storage = "memory" if small and size_bytes <= MEMORY_LIMIT_BYTES else "files"
    if storage == "files" and listing.root is None:
        raise DataError(
            f"{config.name} has no image files, and holding it at {size[0]} x {size[1]} takes "
            f"{size_bytes / 1e9:.1f} GB (data.storage auto allows "
            f"{MEMORY_LIMIT_BYTES / 1e9:.1f} GB); lower data.image_size or set data.storage: "
            "memory."
        )
    if storage == "files" and side is None:
        raise DataError(
            "images that are read from files are brought to one size in training, so "
            f"data.image_size must be set, got null (the first image is {size[0]} x {size[1]}); "
            "set it, e.g. to 224."
        )
    return _Plan(storage, size, resize=side is not None)


def _too_small(listing: Listing, batch_size: int) -> list[str]:
    count = int(np.sum(listing.splits == "train"))
    if count >= batch_size:
        return []
    return [
        f"the train split has {count} images, fewer than one batch of {batch_size}; add images, "
        "or lower the batch_size of pretrain, finetune and sample.evaluation."
    ]


def _report(config: DataConfig, complaints: list[str]) -> str:
    where = config.path or config.name
    if len(complaints) == 1:
        return f"{where}: {complaints[0]}"
    return "\n".join([f"{where} has {len(complaints)} defects:", *(f"- {c}" for c in complaints)])


def _describe(config: DataConfig, listing: Listing, plan: _Plan, found: Survey) -> DatasetInfo:
    train = listing.splits == "train"
    pixels = int(train.sum()) * plan.size[0] * plan.size[1]
    mean = found.sums[train].sum(axis=0) / (255 * pixels)
    square = found.squares[train].sum(axis=0) / (255**2 * pixels)
    std = np.sqrt(np.maximum(square - mean**2, 0.0))
    constant = std < 1e-6
    if constant.all():
        raise DataError("all training images have the same single color; nothing can be learned.")
    warnings = [*listing.warnings, *(f"{note}: {k}" for note, k in sorted(found.notes.items()))]
    if constant.any():
        warnings.append(f"channels that never change: {np.flatnonzero(constant).tolist()}")
    warnings += _alike(listing.classes)
    warnings += _leaks(listing, found.digests)
    boxed = listing.boxes is not None
    if listing.boxes is not None:
        warnings += listing.boxes.unseen(listing.splits, listing.classes)
        if listing.sizes is not None:
            warnings += listing.boxes.tiny(listing.sizes, plan.size)
        mean, std, constant = np.zeros_like(mean), np.ones_like(std), np.zeros_like(constant)
    return DatasetInfo(
        task="detection" if boxed else "classification",
        name=listing.name,
        classes=listing.classes,
        channels=listing.channels,
        image_size=plan.size,
        mean=tuple(config.mean or mean.tolist()),
        std=tuple(config.std or np.where(constant, 1.0, std).tolist()),
        storage=plan.storage,
        root=listing.root if plan.storage == "files" else None,
        counts={name: int(np.sum(listing.splits == name)) for name in SPLITS},
        fingerprint=_fingerprint(listing, plan, found),
        warnings=tuple(warnings),
    )


def _alike(classes: Sequence[str]) -> Iterator[str]:
    """Say which classes differ in case or punctuation only: they may be meant as one."""
    groups = defaultdict(list)
    for name in classes:
        groups[re.sub(r"[\W_]+", "", name.casefold())].append(name)
    for key, names in groups.items():
        if key and len(names) > 1:
            yield f"classes whose names differ in case or punctuation only: {', '.join(names)}"


def _leaks(listing: Listing, digests: list[bytes]) -> Iterator[str]:
    """Say which splits share identical images: they flatter the score."""
    content: dict[Split, dict[bytes, int]] = {name: {} for name in SPLITS}
    splits = listing.splits.tolist()
    for number, split in enumerate(splits):
        content[split][digests[number]] = number
    for one, other in combinations(SPLITS, 2):
        copies = [
            number
            for number, split in enumerate(splits)
            if split == other and digests[number] in content[one]
        ]
        if copies:
            twin = content[one][digests[copies[0]]]
            yield (
                f"{other} images that are identical to {one} images, and flatter the score: "
                f"{len(copies)} (e.g. {listing.names[copies[0]]} = {listing.names[twin]})"
            )


def _fingerprint(listing: Listing, plan: _Plan, found: Survey) -> str:
    """Hash what training sees: pixels (memory) or paths and contents (files), labels, splits."""
    settings = [listing.classes, listing.channels, plan.size, plan.storage]
    content = hashlib.sha256(json.dumps(settings).encode())
    content.update(listing.labels.astype("<i8").tobytes())
    content.update("\n".join(listing.splits).encode())
    if listing.boxes is not None:
        for part in (listing.boxes.corners, listing.boxes.labels, listing.boxes.crowd):
            content.update(np.ascontiguousarray(part).tobytes())
        content.update(listing.boxes.images.tobytes())
    if listing.sizes is not None:
        content.update(listing.sizes.tobytes())
    if found.pixels is not None:
        content.update(found.pixels.data)
    else:
        content.update(json.dumps(list(listing.names)).encode())
        content.update(b"".join(found.digests))
    return content.hexdigest()
