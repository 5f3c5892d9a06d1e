"""PASCAL VOC layout: `Annotations/*.xml`, `JPEGImages/*`, and perhaps lists in `ImageSets/Main`.

Which list becomes which split:

| lists | train | search | test |
| --- | --- | --- | --- |
| train, val, test | train | val | test |
| train (or trainval), test | train, less a share | that share | test |
| train, val | train, less a share | that share | val |
| train or trainval, or no list at all | all, less two shares | one share | the other share |

Without a list of training images these are all that no other list names. In place of lists there
may be folders `train`, `val` (or `valid`) and `test`, each with images and XML files, side by side
or in folders of their own.

Only names inside the folder count: an annotation belongs to the image of the same name without its
ending, whatever path the XML file gives. Corners are pixels counted from 1, both inside the box, as
VOC has them. Objects marked "difficult" are not learned, and are scored as COCO's crowds: what lies
inside of one counts neither for nor against a detector.

Source:
    Everingham et al. (2010), The PASCAL Visual Object Classes Challenge.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PureWindowsPath

import numpy as np

from seernet.config import DataConfig
from seernet.data.boxes import BACKGROUND, Box, Boxes, Defects, image_size, inside
from seernet.data.images import SUFFIXES, Picture, read_image
from seernet.data.listing import Listing
from seernet.errors import DataError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""Of VOC 2007 and 2012."""

_LAYOUT = (
    "arrange it as <data.path>/Annotations/*.xml and <data.path>/JPEGImages/*, or so in each of "
    "its folders train, val and test"
)
_IMAGES = ("JPEGImages", "images", "Images", "")
_ANNOTATIONS = ("Annotations", "annotations", "")
_KINDS = ((_ANNOTATIONS, {".xml"}), (_IMAGES, set(SUFFIXES)))
_LISTS = {name: name for name in ("train", "val", "trainval", "test")}
_LISTS |= {"valid": "val", "validation": "val"}
_OF_A_CLASS = re.compile(r".+_(train|val|trainval|test)")  # lists of VOC's that are not needed


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
        raise DataError(f"data.path must be a folder, and {path!r} is none; {_LAYOUT}.")
    root = Path(path)
    defects = Defects(config.bad_boxes == "drop")
    layout = _folders if _is_divided(root) else _folder
    files, images, lists = layout(root, defects)
    if not files:
        raise DataError(f"{root} has no annotations (*.xml); {_LAYOUT}.")
    splits, unlisted = _splits(lists, sorted(files), defects)
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


Found = tuple[dict[str, str], dict[str, str], dict[str, list[str]]]


def _folder(root: Path, defects: Defects) -> Found:
    """Annotations and images by name, as paths below the root, and the names in each list."""
    files = _by_stem(root, root, _ANNOTATIONS, {".xml"}, defects)
    images = _by_stem(root, root, _IMAGES, SUFFIXES, defects)
    return files, images, _lists(root, set(files), defects)


def _is_divided(root: Path) -> bool:
    """Whether a folder for training holds all of its own, and the root nothing beside."""
    if (root / "ImageSets").exists() or any(_holds(root, _KINDS)):
        return False
    training = [path for path in root.iterdir() if _split_of(path) in ("train", "trainval")]
    return any(all(_holds(path, _KINDS)) for path in training)


def _holds(base: Path, kinds: Iterable[tuple[Sequence[str], set[str]]]) -> list[bool]:
    return [
        any(_ends(path, endings) for folder in folders for path in (base / folder).glob("*"))
        for folders, endings in kinds
    ]


def _split_of(folder: Path) -> str | None:
    return _LISTS.get(folder.name.lower()) if folder.is_dir() else None


def _folders(root: Path, defects: Defects) -> Found:
    """The same of a folder for each split."""
    files: dict[str, str] = {}
    images: dict[str, str] = {}
    lists: dict[str, list[str]] = {}
    for part in sorted(path for path in root.iterdir() if path.is_dir()):
        kind = _split_of(part)
        if kind is None:
            if _holds(part, _KINDS)[0]:
                remedy = "name them so, or remove them"
                defects.other("folders are called neither train, val nor test", remedy, part.name)
            continue
        own = _by_stem(root, part, _ANNOTATIONS, {".xml"}, defects)
        pictures = _by_stem(root, part, _IMAGES, SUFFIXES, defects)
        files |= {f"{part.name}/{stem}": file for stem, file in own.items()}
        images |= {f"{part.name}/{stem}": image for stem, image in pictures.items()}
        if own and kind in lists:
            defects.other(f"folders are of {kind} images beside another", "keep one", part.name)
        if own:
            lists[kind] = [f"{part.name}/{stem}" for stem in own]
    return files, images, lists


def _by_stem(
    root: Path, base: Path, folders: Sequence[str], suffixes: Iterable[str], defects: Defects
) -> dict[str, str]:
    """Files of the base's first folder that has any, as paths below the root, by their stem.

    If it is none of these `folders`, it may be the only other one.
    """
    endings = set(suffixes)
    for folder in chain(folders, _only_other(base, folders, endings)):
        place = base / folder
        if place.is_dir():
            found: dict[str, str] = {}
            for path in sorted(place.iterdir()):
                if _ends(path, endings):
                    name = path.relative_to(root).as_posix()
                    if name.encode("utf-8", "replace").decode() != name:
                        raise DataError(f"the file name {name!r} is not UTF-8; rename it.")
                    if found.setdefault(path.stem, name) != name:
                        raise DataError(
                            f"{found[path.stem]} and {name} would share one annotation; remove "
                            "or rename one of them."
                        )
            if found:
                deeper = place.glob("*/*") if folder else ()
                for path in sorted(p for p in deeper if _ends(p, endings)):
                    kind = f"files lie in subfolders of {folder}, which are not read"
                    defects.other(kind, "move them up", path.relative_to(root).as_posix())
                return found
    return {}


def _only_other(base: Path, folders: Sequence[str], endings: set[str]) -> Iterator[str]:
    others = sorted(p for p in base.iterdir() if p.is_dir() and p.name not in folders)
    held = [place.name for place in others if any(_ends(p, endings) for p in place.iterdir())]
    if len(held) == 1:
        yield held[0]


def _ends(path: Path, endings: set[str]) -> bool:
    return path.suffix.lower() in endings and not path.name.startswith(".")


def _splits(
    lists: dict[str, list[str]], stems: list[str], defects: Defects
) -> tuple[dict[str, str], list[str]]:
    """The split of each annotated image, as the lists have it, and which no list names."""
    if "train" not in lists and "trainval" in lists:
        lists["train"] = lists["trainval"]
    if not lists:
        return dict.fromkeys(stems, "train"), []
    if not lists.get("train"):  # all that the others leave
        listed = {stem for stems_of in lists.values() for stem in stems_of}
        lists["train"] = [stem for stem in stems if stem not in listed]
    places = {"train": "train"}
    if "test" in lists:
        places["test"] = "test"
    if "val" in lists and lists["train"] is not lists.get("trainval"):
        places["val"] = "search" if "test" in lists else "test"
    splits: dict[str, str] = {}
    for name, split in places.items():
        for stem in lists[name]:
            if splits.setdefault(stem, split) != split:
                defects.other("images stand in two lists", "keep each in one", stem)
    return splits, [stem for stem in stems if stem not in splits]


def _lists(root: Path, known: set[str], defects: Defects) -> dict[str, list[str]]:
    """The names in each list of `ImageSets/Main`, or of `ImageSets` if there is no such folder.

    A list of all images (CVAT's `default.txt`) says nothing of splits.
    """
    folder = root / "ImageSets"
    folder = folder / "Main" if (folder / "Main").is_dir() else folder
    paths: dict[str, Path] = {}
    others = []
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() != ".txt":
            continue
        kind = _LISTS.get(path.stem.lower())
        if kind is None:
            if not _OF_A_CLASS.fullmatch(path.stem.lower()) and not known <= {*_names(path, known)}:
                others.append(path.name)
        elif paths.setdefault(kind, path) != path:
            defects.other(f"lists are of {kind} images beside another", "keep one", path.name)
    for name in others:
        if paths:
            defects.note("lists are called neither train, val, trainval nor test: not read", name)
        else:
            remedy = "name them so, or remove them to have splits drawn"
            defects.other("lists are called neither train, val, trainval nor test", remedy, name)
    return {kind: _names(path, known) for kind, path in paths.items()}


def _names(path: Path, known: set[str]) -> list[str]:
    """The names in a list, in UTF-8 or, as some tools of Windows write, UTF-16."""
    content = path.read_bytes()
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    lines = content.decode("utf-16" if wide else "utf-8-sig", errors="replace").splitlines()
    return [_stem(line.strip(), known) for line in lines if line.strip()]


def _stem(line: str, known: set[str]) -> str:
    """An image's name in a line of a list, which may hold folders, its ending or a flag too."""
    for text in (line, line.rsplit(None, 1)[0], line.split()[0]):
        path = PureWindowsPath(text)  # takes both kinds of slashes
        for candidate in (text, path.name, path.stem):
            if candidate in known:
                return candidate
    return line.split()[0]


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
