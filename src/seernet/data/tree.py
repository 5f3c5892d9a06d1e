"""Folders of images: `train/<class>/*`, optionally `val/` (or `validation/`) and `test/`.

Which folder becomes which split:

| folders | train | search | test |
| --- | --- | --- | --- |
| train, val, test | train | val | test |
| train, test | train, less a share | that share | test |
| train, val | train, less a share | that share | val |
| train | train, less two shares | one share | the other share |

Without test/, val/ is the test split, because the validation images of ImageNet are what everybody
reports on. Class names, and with them labels, are sorted as torchvision's `ImageFolder` does, so
torchvision's weights fit. Hidden files and the usual litter (Thumbs.db, text files) are ignored.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seernet.data.images import SUFFIXES, Picture, read_image
from seernet.data.listing import Listing, shorten
from seernet.errors import DataError

_VALIDATION = ("val", "validation")
_LITTER = frozenset({".txt", ".md", ".csv", ".json", ".xml", ".db", ".ini"})
_LAYOUT = "arrange the images as <data.path>/train/<class>/<image>"


@dataclass
class _Findings:
    """What a walk over the tree collects."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)  # split, class, path
    empty: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    unnameable: list[str] = field(default_factory=list)


def list_tree(path: str | None, channels: int) -> Listing:
    """List an image folder; its defects are in the listing's `complaints`.

    Args:
        path: `data.path`.
        channels: 1 to read the images as gray, 3 as RGB.

    Returns:
        The listing, ordered by path.

    Raises:
        DataError: If there is no folder, or no class folders with images in it.
    """
    root = _existing(path)
    folders = _split_folders(root)
    found = _Findings()
    for split, folder in folders.items():
        _walk_split(root, root / folder, split, found)
    if not any(split == "train" for split, _, _ in found.rows):
        raise DataError(_no_classes(root / folders["train"], found))
    rows = sorted(found.rows, key=lambda row: row[2])
    classes = sorted({row[1] for row in rows})
    index = {name: label for label, name in enumerate(classes)}
    names = [row[2] for row in rows]

    def read(number: int) -> Picture:
        return read_image(root / names[number], channels)

    return Listing(
        name="imagefolder",
        classes=tuple(classes),
        channels=channels,
        labels=np.array([index[row[1]] for row in rows], dtype=np.int64),
        splits=np.array([row[0] for row in rows], dtype="<U6"),
        names=names,
        read=read,
        root=str(path),
        complaints=tuple(_complaints(found, folders)),
        warnings=tuple(_unused(root, folders)),
    )


def _existing(path: str | None) -> Path:
    if path is None:
        raise DataError(f"data.name imagefolder needs data.path, got null; {_LAYOUT}.")
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"data.path must be a folder, and {path!r} is none; {_LAYOUT}.")
    return root


def _split_folders(root: Path) -> dict[str, str]:
    """Return the folder of each split that the source has."""
    present = {entry.name for entry in root.iterdir() if entry.is_dir()}
    if "train" not in present:
        raise DataError(_no_train(root, sorted(present)))
    validation = [name for name in _VALIDATION if name in present]
    if len(validation) > 1:
        raise DataError(f"{root} has both val/ and validation/; keep one of them.")
    folders = {"train": "train"}
    if "test" in present:
        folders["test"] = "test"
    if validation:
        folders["search" if "test" in present else "test"] = validation[0]
    return folders


def _no_train(root: Path, present: list[str]) -> str:
    images = sum(_is_image(entry.name) for entry in root.iterdir() if entry.is_file())
    if images:
        return (
            f"{root} holds {images} images directly, and no class folders; {_LAYOUT}, "
            "the name of a folder being the class of its images."
        )
    shown = shorten([name for name in present if not name.startswith(".")]) or "no folders"
    return f"{root} has no folder train/ (it has: {shown}); {_LAYOUT}."


def _no_classes(train: Path, found: _Findings) -> str:
    loose = [name for name in found.loose if name.startswith("train/")]
    if loose:
        return (
            f"{train} holds {len(loose)} images directly, and no class folders with images; "
            f"{_LAYOUT}, the name of a folder being the class of its images."
        )
    return f"{train} has no class folders with images; {_LAYOUT}."


def _walk_split(root: Path, folder: Path, split: str, found: _Findings) -> None:
    for entry in sorted(folder.iterdir()):
        if _is_ignored(entry.name):
            continue
        name = entry.relative_to(root).as_posix()
        if not entry.is_dir():
            (found.loose if _is_image(entry.name) else found.strange).append(name)
            continue
        paths = _walk_class(root, entry, found)
        # File systems spell accents in two ways; one class must not become two.
        label = unicodedata.normalize("NFC", entry.name)
        found.rows.extend((split, label, path) for path in paths)
        if not paths:
            found.empty.append(f"{name}/")


def _walk_class(root: Path, folder: Path, found: _Findings) -> list[str]:
    paths = []
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            path = (Path(where) / file).relative_to(root).as_posix()
            if _is_ignored(file):
                continue
            if not _is_text(path):
                found.unnameable.append(repr(path))
            elif _is_image(file):
                paths.append(path)
            else:
                found.strange.append(path)
    return paths


def _complaints(found: _Findings, folders: dict[str, str]) -> list[str]:
    complaints = []
    if found.empty:
        complaints.append(
            f"class folders without images: {shorten(found.empty)}; fill or remove them."
        )
    if found.loose:
        complaints.append(
            f"images outside of class folders: {shorten(sorted(found.loose))}; "
            "move each into the folder of its class."
        )
    if found.strange:
        complaints.append(
            f"files that are no images: {shorten(sorted(found.strange))}; move them away "
            f"(images end in {', '.join(sorted(SUFFIXES))})."
        )
    if found.unnameable:
        complaints.append(
            f"file names that are not UTF-8: {shorten(sorted(found.unnameable))}; rename them."
        )
    trained = {name for split, name, _ in found.rows if split == "train"}
    if len(trained) < 2:
        complaints.append(
            f"classification needs at least 2 classes in train/, got {shorten(sorted(trained))}; "
            "add the folders of the other classes."
        )
    for split, folder in folders.items():
        if split != "train":
            present = {name for other, name, _ in found.rows if other == split}
            complaints.extend(_compare(trained, present, folder))
    return complaints


def _compare(trained: set[str], present: set[str], folder: str) -> list[str]:
    complaints = []
    if absent := sorted(trained - present):
        complaints.append(
            f"classes of train/ without images in {folder}/: {shorten(absent)}; "
            f"add images of them to {folder}/, or remove them from train/."
        )
    if extra := sorted(present - trained):
        complaints.append(
            f"classes of {folder}/ without images in train/: {shorten(extra)}; "
            f"add images of them to train/, or remove them from {folder}/."
        )
    return complaints


def _unused(root: Path, folders: dict[str, str]) -> list[str]:
    used = set(folders.values())
    unused = sorted(
        f"{entry.name}/"
        for entry in root.iterdir()
        if entry.is_dir() and entry.name not in used and not entry.name.startswith((".", "_"))
    )
    if not unused:
        return []
    return [f"folders that are not read: {shorten(unused)} (only train, val, validation, test are)"]


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or Path(name).suffix.lower() in _LITTER


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
