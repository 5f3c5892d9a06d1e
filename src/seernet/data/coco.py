"""COCO layout: JSON files of instances, and the folders of images that they speak of.

Read are `annotations/instances_<folder>.json` with images in `<folder>/` or `images/<folder>/`, and
`<folder>/_annotations.coco.json` with the images beside it. A folder's name begins with `train`,
`val` or `test`; splits are made of them as in `voc`. Crowds are not learned and do not count.

Source:
    Lin et al. (2014), Microsoft COCO: Common Objects in Context.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seernet.config import DataConfig
from seernet.data.boxes import Box, Boxes, Defects, fault
from seernet.data.images import Picture, read_image
from seernet.data.listing import Listing
from seernet.errors import DataError

_LAYOUT = "arrange it as <data.path>/annotations/instances_train*.json and <data.path>/train*/"
_KINDS = ("train", "val", "test")


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
    files = {file.kind: file for file in _files(root)}
    if "train" not in files:
        raise DataError(f"{root} has no annotations of training images; {_LAYOUT}.")
    documents = {kind: _read(file.path) for kind, file in files.items()}
    classes = _classes(documents["train"], config)
    defects = Defects(config.bad_boxes == "drop")
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
        for kind in _KINDS:
            if folder.startswith(kind):
                yield _File(kind, path, place)
    for path in sorted(root.glob("*/_annotations.coco.json")):
        for kind in _KINDS:
            if path.parent.name.startswith(kind):
                yield _File(kind, path, path.parent.name)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        for key in ("images", "annotations", "categories"):
            if not isinstance(document[key], list):
                raise ValueError(f"{key} is no list")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a COCO file of instances ({error!r:.200}); correct it."
        ) from error
    return dict(document)


def _classes(document: Mapping[str, Any], config: DataConfig) -> dict[str, int]:
    """Class names in the order of the categories' ids, less those that `data.classes` leaves out.

    Categories that no annotation uses (a supercategory that some tools write) are no class.
    """
    used = {item.get("category_id") for item in document["annotations"]}
    found = [
        c["name"] for c in sorted(document["categories"], key=lambda c: c["id"]) if c["id"] in used
    ]
    names = config.classes or found
    return {name: index for index, name in enumerate(names)}


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
    boxes: dict[Any, list[Box]] = defaultdict(list)
    name = file.path.relative_to(root).as_posix()
    for item in document["annotations"]:
        image = images.get(item.get("image_id"))
        if image is None:
            told = f"{name} annotation {item.get('id')}"
            if defects.drop:
                defects.note("annotations belong to no image", told)
            else:
                defects.other(
                    "annotations belong to no image",
                    "remove them, or set data.bad_boxes: drop",
                    told,
                )
            continue
        box = _box(item, image, categories, classes, defects)
        if box is not None:
            boxes[image["id"]].append(box)
    for identity, image in sorted(images.items(), key=lambda pair: str(pair[1]["file_name"])):
        path = f"{file.folder}/{image['file_name']}"
        if not (root / path).is_file():
            defects.other(f"images of {name} are missing", "put them there", path)
            continue
        if not boxes[identity]:
            defects.note("images without boxes, which only teach what is background", path)
        yield path, (int(image["height"]), int(image["width"])), boxes[identity]


def _box(
    item: Mapping[str, Any],
    image: Mapping[str, Any],
    categories: Mapping[Any, str],
    classes: Mapping[str, int],
    defects: Defects,
) -> Box | None:
    height, width = int(image["height"]), int(image["width"])
    file = str(image["file_name"])
    try:
        left, top, across, down = (float(value) for value in item["bbox"])
    except (KeyError, TypeError, ValueError):
        defects.box("no four numbers", file, f"annotation {item.get('id')}")
        return None
    name = str(categories.get(item.get("category_id")))
    shown = f"{name} {[left, top, across, down]}"
    corners = (left, top, left + across, top + down)
    problem = fault(corners, (height, width))
    if name not in classes:
        defects.box(f"a class that is not in data.classes ({name})", file, shown)
    elif problem is not None:
        defects.box(problem, file, shown)
    else:
        inside = (max(left, 0.0), max(top, 0.0), min(corners[2], width), min(corners[3], height))
        return Box(inside, classes[name], bool(item.get("iscrowd", 0)))
    return None
