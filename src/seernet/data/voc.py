"""PASCAL VOC layout: `Annotations/*.xml`, `JPEGImages/*`, and perhaps lists in `ImageSets/Main`.

Which image belongs to which split: see `voc_layout`. Only names inside the folder count: an
annotation belongs to the image of the same name without its ending, whatever path the XML file
gives. Corners are pixels counted from 1, both inside the box, as VOC has them. Objects marked
"difficult" are not learned, and are scored as COCO's crowds: what lies inside of one counts neither
for nor against a detector.

Source:
    Everingham et al. (2010), The PASCAL Visual Object Classes Challenge.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seernet.config import DataConfig
from seernet.data.boxes import BACKGROUND, Box, Boxes, Defects, image_size, inside
from seernet.data.images import Picture, read_image
from seernet.data.listing import Listing
from seernet.data.voc_layout import ARRANGEMENT, find_files, splits_of
from seernet.errors import DataError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""Of VOC 2007 and 2012."""


@dataclass(frozen=True)
class _Object:
    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class _Scene:
    """One annotated image: its path below the root, (height, width), objects and XML file."""

    path: str
    size: tuple[int, int]
    objects: tuple[_Object, ...]
    file: str


def list_voc(config: DataConfig, path: str | None, classes: Sequence[str] | None) -> Listing:
    """List a folder in VOC layout; its defects are in the listing's `complaints`.

    Args:
        config: The section `data`; `channels` and `bad_boxes` count.
        path: The folder.
        classes: Their names; None takes those that the annotations name, sorted.

    Raises:
        DataError: If there is no such folder, or nothing annotated in it.
    """
    if path is None or not Path(path).is_dir():
        raise DataError(f"data.path must be a folder, and {path!r} is none; {ARRANGEMENT}.")
    root = Path(path)
    defects = Defects(config.bad_boxes == "drop")
    files, images, lists = find_files(root, defects)
    if not files:
        raise DataError(f"{root} has no annotations (*.xml); {ARRANGEMENT}.")
    splits, unlisted = splits_of(lists, sorted(files), defects)
    scenes, names = [], []
    for stem in sorted(splits):
        scene = _scene(root, stem, files.get(stem), images.get(stem), defects)
        if scene is not None:
            scenes.append(scene)
            names.append(stem)
    for stem in sorted(set(images) - set(files)):
        if stem not in splits:
            defects.note("images without an annotation are left out", images[stem])
    for stem in unlisted:
        defects.note("annotated images that no list names are left out", stem)
    if not scenes:
        raise DataError("\n".join([f"{root} has no usable image.", *defects.complaints]))
    known = tuple(classes or sorted({o.name for scene in scenes for o in scene.objects}))
    boxes = Boxes.of([_boxes(scene, known, defects) for scene in scenes])
    if not len(boxes.labels):
        raise DataError("\n".join([f"{root} has no usable box.", *defects.complaints]))
    channels = config.channels or 3
    paths = [scene.path for scene in scenes]

    def read(number: int) -> Picture:
        return read_image(root / paths[number], channels)

    return Listing(
        name=config.name,
        classes=known,
        channels=channels,
        labels=boxes.rarest(len(scenes), len(known)),
        splits=np.array([splits[name] for name in names], dtype="<U6"),
        names=paths,
        read=read,
        root=str(root),
        complaints=tuple(defects.complaints),
        warnings=tuple(defects.warnings),
        boxes=boxes,
        sizes=np.array([scene.size for scene in scenes], dtype=np.int64),
    )


def _scene(
    root: Path, stem: str, file: str | None, image: str | None, defects: Defects
) -> _Scene | None:
    if file is None:
        defects.other("images of the lists have no annotation", "add it, or drop the name", stem)
        return None
    if image is None:
        kind = "annotations have no image"
        if defects.drop:
            defects.note(kind, file)
        else:
            remedy = "add the image, remove the file, or set data.bad_boxes: drop"
            defects.other(kind, remedy, file)
        return None
    try:
        size, objects = _parse(ElementTree.parse(root / file).getroot())
    except (ElementTree.ParseError, ValueError, OSError, LookupError, ArithmeticError) as error:
        defects.other("annotations cannot be read", "correct them", f"{file} ({error})")
        return None
    found = image_size(root / image, size, file, defects)
    if found is None:
        return None
    if not objects:
        defects.note(BACKGROUND, image)
    return _Scene(image, found, objects, file)


def _parse(tree: ElementTree.Element) -> tuple[tuple[int, int] | None, tuple[_Object, ...]]:
    """Size (height, width; None where it is not given) and objects of an annotation."""
    height, width = (tree.findtext(f"size/{side}") for side in ("height", "width"))
    size = (int(float(height)), int(float(width))) if height and width else None
    objects = []
    for item in tree.iter("object"):
        name = (item.findtext("name") or "").strip()
        values = [item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
        if not name or any(value is None for value in values):
            raise ValueError("an object without a name or without all four corners")
        left, top, right, bottom = (float(value) for value in values if value is not None)
        difficult = (item.findtext("difficult") or "0").strip() == "1"
        objects.append(_Object(name, (left - 1.0, top - 1.0, right, bottom), difficult))
    return None if size == (0, 0) else size, tuple(objects)


def _boxes(scene: _Scene, classes: Sequence[str], defects: Defects) -> list[Box]:
    found = []
    for item in scene.objects:
        left, top, right, bottom = item.corners
        shown = f"{item.name} {[left + 1.0, top + 1.0, right, bottom]}"
        # From 1 to 1 is one pixel wide; a box that is written without extent is none.
        extent = min(right - left, bottom - top) - 1.0
        corners, problem = inside(item.corners, scene.size)
        if corners is not None and extent <= 0.0:
            corners, problem = None, "swapped corners" if extent < 0.0 else "no area"
        if item.name not in classes:
            defects.box(f"a class that is not in data.classes ({item.name})", scene.file, shown)
        elif corners is None:
            defects.box(problem, scene.file, shown)
        else:
            found.append(Box(corners, classes.index(item.name), item.difficult))
    return found
