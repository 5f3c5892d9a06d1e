"""COCO layout: JSON files of instances, and the folders of images that they speak of.

Read are `annotations/instances_<folder>.json` with images in `<folder>/` or `images/<folder>/`, and
`<folder>/_annotations.coco.json` with the images beside it. A folder's name begins with `train`,
`val` or `test`; splits are made of them as in `voc_layout`. Crowds are not learned, and do not
count.

Source:
    Lin et al. (2014), Microsoft COCO: Common Objects in Context.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seernet.config import DataConfig
from seernet.data.boxes import BACKGROUND, Box, Boxes, image_size, inside, note_if_cut
from seernet.data.defects import Defects
from seernet.data.images import Picture, read_image
from seernet.data.listing import Listing
from seernet.errors import DataError

_LAYOUT = "arrange it as <data.path>/annotations/instances_train*.json and <data.path>/train*/"
_KINDS = ("train", "val", "test")
_IDS = ("id", "image_id", "category_id")
_NEEDED = {
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id"),
    "categories": ("id", "name"),
}
_UNIQUE = ("images", "categories")


@dataclass(frozen=True)
class _File:
    """One JSON file: which split it is, and the folder of its images, below the root."""

    kind: str
    path: Path
    folder: str


def list_coco(config: DataConfig) -> Listing:
    """List a folder in COCO layout; its defects are in the listing's `complaints`.

    Raises:
        DataError: If there is no such folder, no annotation, or one that is not COCO's.
    """
    if config.path is None or not Path(config.path).is_dir():
        raise DataError(f"data.path must be a folder, and {config.path!r} is none; {_LAYOUT}.")
    root = Path(config.path)
    files: dict[str, _File] = {}
    for file in _files(root):
        if files.setdefault(file.kind, file) != file:
            raise DataError(
                f"{files[file.kind].path} and {file.path} are both of the {file.kind} split; keep "
                "one."
            )
    if "train" not in files:
        raise DataError(f"{root} has no annotations of training images; {_LAYOUT}.")
    documents = {kind: _read(file.path) for kind, file in files.items()}
    classes = _classes(documents["train"], config)
    defects = Defects.of(config.bad_boxes)
    splits = {"train": "train", "test": "test", "val": "search" if "test" in files else "test"}
    paths: list[str] = []
    sizes: list[tuple[int, int]] = []
    rows: list[list[Box]] = []
    places: list[str] = []
    for kind, document in documents.items():
        for path, size, boxes in _scenes(root, files[kind], document, classes, defects):
            paths.append(path)
            sizes.append(size)
            rows.append(boxes)
            places.append(splits[kind])
    for path, count in Counter(paths).items():
        if count > 1:
            defects.other("images stand in two files", "keep each in one", path)
    gathered = Boxes.of(rows)
    if not len(gathered.labels):
        raise DataError("\n".join([f"{root} has no usable box.", *defects.complaints]))
    channels = config.channels or 3

    def read(number: int) -> Picture:
        return read_image(root / paths[number], channels)

    return Listing(
        name=config.name,
        classes=tuple(classes),
        channels=channels,
        labels=gathered.rarest(len(rows), len(classes)),
        splits=np.array(places, dtype="<U6"),
        names=paths,
        read=read,
        root=str(root),
        complaints=tuple(defects.complaints),
        warnings=tuple(defects.warnings),
        boxes=gathered,
        sizes=np.array(sizes, dtype=np.int64),
    )


def _files(root: Path) -> Iterator[_File]:
    for path in sorted(root.glob("annotations/instances_*.json")):
        folder = path.stem.removeprefix("instances_")
        place = next((p for p in (folder, f"images/{folder}") if (root / p).is_dir()), "images")
        yield _File(_kind(folder, path), path, place)
    for path in sorted(root.glob("*/_annotations.coco.json")):
        yield _File(_kind(path.parent.name, path), path, path.parent.name)


def _kind(folder: str, path: Path) -> str:
    for kind in _KINDS:
        if folder.lower().startswith(kind):
            return kind
    raise DataError(
        f"{path} is of no split: {folder!r} begins with none of {', '.join(_KINDS)}; name it so, "
        "or move it away."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        for part in _NEEDED:
            _check(part, document[part])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is not a COCO file of instances ({error!r:.200}); correct it."
        ) from error
    return dict(document)


def _check(part: str, entries: object) -> None:
    """Refuse by a ValueError what is no list of entries with ids and names, or is ambiguous."""
    if not isinstance(entries, list):
        raise ValueError(f"{part} is no list")
    for item in entries:
        if not isinstance(item, dict):
            raise ValueError(f"an entry of {part} is no object: {str(item)[:80]}")
        for name in _NEEDED[part]:
            value = item.get(name)
            if value is None:
                raise ValueError(f"an entry of {part} has no {name}: {str(item)[:80]}")
            if not (_is_id(value) if name in _IDS else _is_name(value)):
                raise ValueError(f"an entry of {part} has an unusable {name}: {str(value)[:80]}")
        if part == "images":
            _told(item)
    if part in _UNIQUE:
        (most, count), *_ = [*Counter(item["id"] for item in entries).most_common(1), (None, 0)]
        if count > 1:
            raise ValueError(f"two entries of {part} have the id {most}")


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) or (isinstance(value, float) and value.is_integer())


def _is_name(value: object) -> bool:
    """Text that files and tables can hold."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    return value.encode("utf-8", "replace").decode() == value  # else half a surrogate pair


def _told(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width that an entry gives, if it gives both."""
    height, width = image.get("height"), image.get("width")
    try:
        return (int(height), int(width)) if height and width else None
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"an entry of images has an unusable size: {str(image)[:80]}") from error


def _classes(document: Mapping[str, Any], config: DataConfig) -> dict[str, int]:
    """Class names in the order of the categories' ids, less those that `data.classes` leaves out.

    Categories that no annotation uses (a supercategory that some tools write) are no class.
    """
    used = {item["category_id"] for item in document["annotations"]}
    categories = sorted(document["categories"], key=lambda c: (isinstance(c["id"], str), c["id"]))
    found = dict.fromkeys(item["name"] for item in categories if item["id"] in used)
    return {name: index for index, name in enumerate(config.classes or found)}


def _scenes(
    root: Path,
    file: _File,
    document: Mapping[str, Any],
    classes: Mapping[str, int],
    defects: Defects,
) -> Iterator[tuple[str, tuple[int, int], list[Box]]]:
    """Path, size and boxes of each image of one file, in the order of paths."""
    categories = {item["id"]: item["name"] for item in document["categories"]}
    images = {item["id"]: item for item in document["images"]}
    name = file.path.relative_to(root).as_posix()
    sizes: dict[Any, tuple[int, int]] = {}
    paths = {key: _place(root, file.folder, image["file_name"]) for key, image in images.items()}
    for path, count in Counter(paths.values()).items():
        if count > 1:
            defects.other(f"files are named by two images of {name}", "merge the entries", path)
    for key, path in paths.items():
        if not _exists(root / path):
            defects.unless_dropped(f"images of {name} are missing", "put them there", path)
            continue
        size = image_size(root / path, _told(images[key]), name, defects)
        if size is not None:
            sizes[key] = size
    boxes: dict[Any, list[Box]] = defaultdict(list)
    for item in document["annotations"]:
        key = item["image_id"]
        if key in sizes:
            box = _box(item, paths[key], sizes[key], categories, classes, defects)
            if box is not None:
                boxes[key].append(box)
        elif key not in images:
            told_of = f"{name} annotation {item.get('id')}"
            defects.unless_dropped("annotations belong to no image", "remove them", told_of)
    for key in sorted(sizes, key=paths.__getitem__):
        if all(box.crowd for box in boxes[key]):
            defects.note(BACKGROUND, paths[key])
        yield paths[key], sizes[key], boxes[key]


def _place(root: Path, folder: str, name: str) -> str:
    """An image's path below the root; its name may start there, or carry folders that are not."""
    name = name.replace("\\", "/")
    places = (f"{folder}/{name}", name, f"{folder}/{name.rpartition('/')[2]}")
    return next((path for path in places if _exists(root / path)), places[0])


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, say
        return False


def _box(
    item: Mapping[str, Any],
    file: str,
    size: tuple[int, int],
    categories: Mapping[Any, str],
    classes: Mapping[str, int],
    defects: Defects,
) -> Box | None:
    try:
        box = item["bbox"] if isinstance(item["bbox"], list) else ()
        left, top, across, down = (float(value) for value in box)
        crowd = bool(int(item.get("iscrowd") or 0))
        name = str(categories.get(item["category_id"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        defects.box("no four numbers", file, f"annotation {item.get('id')}")
        return None
    shown = f"{name} {[left, top, across, down]}"
    given = (left, top, left + across, top + down)
    corners, problem = inside(given, size, clip=defects.clip)
    if name not in classes:
        kind = f"a class that no training image shows, or that data.classes leaves out ({name})"
        defects.box(kind, file, shown)
    elif corners is None:
        defects.box(problem, file, shown)
    else:
        note_if_cut(given, corners, f"{file} {shown}", defects)
        return Box(corners, classes[name], crowd)
    return None
