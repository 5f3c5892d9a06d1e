"""PASCAL VOC layout: `Annotations/*.xml`, `JPEGImages/*`, and perhaps lists in `ImageSets/Main`.

Which image belongs to which split: see `voc_layout`. Only names inside the folder count: an
annotation belongs to the image of the same name (in any case, with the ending or without), whatever
path the XML file gives. Corners are pixels counted from 1, both inside the box, as VOC has them.
Objects marked "difficult" are not learned, and finding one counts neither for nor against a
detector.

Source:
    Everingham et al. (2010), The PASCAL Visual Object Classes Challenge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seernet.config import DataConfig
from seernet.data.boxes import BACKGROUND, Box, Boxes, image_size, inside, note_if_cut
from seernet.data.defects import Defects
from seernet.data.images import Picture, read_image
from seernet.data.listing import Listing
from seernet.data.voc_layout import ARRANGEMENT, find_files, splits_of
from seernet.data.voc_xml import Annotation, AnnotationError, normal_name, read_annotation
from seernet.errors import DataError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""Of VOC 2007 and 2012."""


@dataclass(frozen=True)
class _Scene:
    """One annotated image: its path below the root, (height, width), annotation and XML file."""

    path: str
    size: tuple[int, int]
    annotation: Annotation
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
    defects = Defects.of(config.bad_boxes)
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
        found = [*defects.complaints, *defects.warnings]
        raise DataError("\n".join([f"{root} has no usable image; see why.", *found]))
    named = {item.name for scene in scenes for item in scene.annotation.objects}
    known = tuple(normal_name(name) for name in classes) if classes else tuple(sorted(named))
    boxes = Boxes.of([_boxes(scene, known, defects) for scene in scenes])
    if not len(boxes.labels):
        found = [*defects.complaints, *defects.warnings]
        raise DataError("\n".join([f"{root} has no usable box; correct its annotations.", *found]))
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
        kind, remedy = "images of the lists have no annotation", "add it, or drop the name"
        defects.unless_dropped(kind, remedy, stem)
        return None
    if image is None:
        kind, remedy = "annotations have no image", "add one of the same name, remove the file"
        defects.unless_dropped(kind, remedy, file)
        return None
    try:
        annotation = read_annotation(root / file)
    except (AnnotationError, OSError) as error:
        defects.other("annotations cannot be read", "correct them", f"{file} ({error})")
        return None
    size = image_size(root / image, annotation.size, file, defects)
    return None if size is None else _Scene(image, size, annotation, file)


def _boxes(scene: _Scene, classes: Sequence[str], defects: Defects) -> list[Box]:
    found = []
    for item in scene.annotation.objects:
        if item.name not in classes:
            shown = f"{item.name} {item.shown}"
            defects.box(f"a class that is not in data.classes ({item.name})", scene.file, shown)
            continue
        corners, problem = (None, "no four corners")
        if item.corners is not None:
            corners, problem = inside(item.corners, scene.size, clip=defects.clip)
            left, top, right, bottom = item.corners
            # From 1 to 1 is one pixel wide; a box that is written without extent is none.
            extent = min(right - left, bottom - top) - 1.0
            if corners is not None and extent <= 0.0:
                corners, problem = None, "swapped corners" if extent < 0.0 else "no area"
        if corners is None or item.corners is None:
            defects.box(problem, scene.file, f"{item.name} {item.shown}")
        else:
            note_if_cut(item.corners, corners, f"{scene.file} {item.name} {item.shown}", defects)
            found.append(Box(corners, classes.index(item.name), item.difficult))
    if all(box.crowd for box in found):
        defects.note(BACKGROUND, scene.path)
    return found
