"""Writing and reading the three splits of a prepared folder.

`memory`: `<split>.safetensors` with `images`, `labels`, `ids`; `files`: `<split>.csv` with `path`,
`label`, `id`. Where images have boxes, `<split>.boxes.safetensors` holds them, in pixels of the
size that the network sees: `corners` float32 `m x 4`; `labels` int64, `crowd` uint8 and `images`
int64 (the image's place in the split), `m` each. A folder appears complete or not at all: it is
written beside its place and renamed.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor

from seernet.data.info import SPLITS, DatasetInfo, Split
from seernet.data.listing import Listing
from seernet.data.loader import Target
from seernet.errors import ArtifactError

_COLUMNS = ["path", "label", "id"]


def write_prepared(
    output: Path, info: DatasetInfo, listing: Listing, pixels: NDArray[np.uint8] | None
) -> None:
    """Write a prepared folder, replacing an older one at the end.

    Args:
        output: The folder.
        info: What becomes `dataset.json`.
        listing: Labels, splits and names of the `n` images.
        pixels: `n x C x H x W`; None writes the paths instead.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (output.with_name(f".{output.name}.{end}") for end in ("partial", "old"))
    for leftover in (partial, old):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    for split in SPLITS:
        ids = np.flatnonzero(listing.splits == split)
        if pixels is None:
            _write_paths(partial / f"{split}.csv", listing, ids)
        else:
            images: NDArray[Any] = pixels[ids]
            tensors = {"images": images, "labels": listing.labels[ids], "ids": ids}
            save_file(tensors, partial / f"{split}.safetensors")
        if listing.boxes is not None and listing.sizes is not None:
            boxes = listing.boxes.scaled(listing.sizes, info.image_size).select(ids)
            save_file(
                {
                    "corners": boxes.corners.astype(np.float32),
                    "labels": boxes.labels,
                    "crowd": boxes.crowd.astype(np.uint8),
                    "images": boxes.images,
                },
                partial / f"{split}.boxes.safetensors",
            )
    info.save(partial)
    if output.exists():
        output.rename(old)  # a rename cannot stop half-way, a deletion can
    partial.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def read_decoded(
    folder: Path, info: DatasetInfo, split: Split, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Read one split of `memory` storage onto a device.

    Returns:
        Images, uint8 `n x C x H x W`, and labels, int64 `n`.

    Raises:
        ArtifactError: If the file is missing or does not agree with `info`.
    """
    path = Path(folder) / f"{split}.safetensors"
    try:
        tensors = load_file(path, device=str(device))
        images, labels = tensors["images"], tensors["labels"]
    except (OSError, SafetensorError, KeyError) as error:
        raise _damaged(path, repr(error)) from error
    expected = (info.counts[split], *info.input_shape)
    if tuple(images.shape) != expected or images.dtype != torch.uint8:
        raise _damaged(path, f"images {images.dtype} {tuple(images.shape)}, not uint8 {expected}")
    if tuple(labels.shape) != expected[:1]:
        raise _damaged(path, f"{len(labels)} labels, not {expected[0]}")
    return images, labels


def read_targets(folder: Path, info: DatasetInfo, split: Split) -> list[Target]:
    """Read the boxes of one split, for each image; on the CPU.

    Raises:
        ArtifactError: If the file is missing or does not agree with `info`.
    """
    path = Path(folder) / f"{split}.boxes.safetensors"
    try:
        tensors = load_file(path)
        corners, labels, images = (tensors[key] for key in ("corners", "labels", "images"))
        crowd = tensors["crowd"].bool()
    except (OSError, SafetensorError, KeyError) as error:
        raise _damaged(path, repr(error)) from error
    n = info.counts[split]
    if len({len(corners), len(labels), len(crowd), len(images)}) > 1 or bool((images >= n).any()):
        raise _damaged(path, "it does not belong to the images")
    counts = torch.bincount(images, minlength=n).tolist()
    parts = zip(*(torch.split(part, counts) for part in (corners, labels, crowd)), strict=True)
    return [{"boxes": b, "labels": c, "crowd": d} for b, c, d in parts]


def read_paths(folder: Path, info: DatasetInfo, split: Split) -> list[tuple[str, int, int]]:
    """Read one split of `files` storage.

    Returns:
        For each image its path below the root, label and id.

    Raises:
        ArtifactError: If the file is missing or does not agree with `info`.
    """
    path = Path(folder) / f"{split}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(r["path"], int(r["label"]), int(r["id"])) for r in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise _damaged(path, repr(error)) from error
    if len(rows) != info.counts[split]:
        raise _damaged(path, f"{len(rows)} rows, not {info.counts[split]}")
    return rows


def _write_paths(path: Path, listing: Listing, ids: NDArray[np.int64]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((listing.names[i], listing.labels[i], i) for i in ids)


def _damaged(path: Path, cause: str) -> ArtifactError:
    return ArtifactError(f"cannot read {path} ({cause}); run the prepare stage again.")
