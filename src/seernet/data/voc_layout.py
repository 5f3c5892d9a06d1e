"""Where a folder in VOC layout has its files, and which image belongs to which split.

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
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path, PureWindowsPath

from seernet.data.defects import Defects
from seernet.data.images import SUFFIXES
from seernet.errors import DataError

ARRANGEMENT = (
    "arrange it as <data.path>/Annotations/*.xml and <data.path>/JPEGImages/*, or so in each of "
    "its folders train, val and test"
)
_IMAGES = ("JPEGImages", "images", "Images", "")
_ANNOTATIONS = ("Annotations", "annotations", "")
_KINDS = ((_ANNOTATIONS, {".xml"}), (_IMAGES, set(SUFFIXES)))
_LISTS = {name: name for name in ("train", "val", "trainval", "test")}
_LISTS |= {"valid": "val", "validation": "val"}
_OF_A_CLASS = re.compile(r".+_(train|val|trainval|test)")  # lists of VOC's that are not needed
Found = tuple[dict[str, str], dict[str, str], dict[str, list[str]]]


def find_files(root: Path, defects: Defects) -> Found:
    """Annotations and images by name, as paths below the root, and the names in each list.

    Args:
        root: A folder in VOC layout.
        defects: Takes what is amiss with lists and folders.

    Raises:
        DataError: If a file name is not UTF-8.
    """
    files, images, lists = (_folders if _is_divided(root) else _folder)(root, defects)
    return files, _matched(files, images), lists


def _matched(files: dict[str, str], images: dict[str, str]) -> dict[str, str]:
    """Images by the names of their annotations, which may differ in case, or hold the ending too.

    So `img_1.xml` and `IMG_1.JPG.xml` are of `IMG_1.JPG`, if no other image is called so.
    """
    free = defaultdict(list)
    for name in images.keys() - files.keys():
        free[name.casefold()].append(name)
    found = dict(images)
    for stem in sorted(files.keys() - images.keys()):
        base, dot, ending = stem.rpartition(".")
        names = [stem, base] if f"{dot}{ending}".lower() in SUFFIXES else [stem]
        for likely in (free.get(name.casefold(), []) for name in names):
            if len(likely) == 1 and likely[0] in found:
                found[stem] = found.pop(likely[0])
                break
    return found


def splits_of(
    lists: dict[str, list[str]], stems: list[str], defects: Defects
) -> tuple[dict[str, str], list[str]]:
    """The split of each annotated image, as the lists have it, and which no list names.

    Args:
        lists: The names in each list, from `find_files`.
        stems: All annotations' names, sorted.
        defects: Takes images that stand in two lists.
    """
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


def _folder(root: Path, defects: Defects) -> Found:
    """What `find_files` gives, of a folder that is not divided."""
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
    """What `find_files` gives, of a folder for each split."""
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
                        pair = f"{found[path.stem]} and {name}"
                        defects.other("pairs would share one annotation", "rename one", pair)
            if found:
                deeper = place.glob("*/*") if folder else ()
                for path in sorted(p for p in deeper if _ends(p, endings) and _shown(p.parent)):
                    kind = f"files lie in subfolders of {folder}, which are not read"
                    remedy = "move them up, or remove them"
                    defects.other(kind, remedy, path.relative_to(root).as_posix())
                return found
    return {}


def _only_other(base: Path, folders: Sequence[str], endings: set[str]) -> Iterator[str]:
    others = sorted(p for p in base.iterdir() if p.is_dir() and p.name not in folders)
    held = [place.name for place in others if any(_ends(p, endings) for p in place.iterdir())]
    if len(held) == 1:
        yield held[0]


def _ends(path: Path, endings: set[str]) -> bool:
    return path.suffix.lower() in endings and _shown(path)


def _shown(path: Path) -> bool:
    return not (path.name.startswith(".") or path.name == "__MACOSX")


def _lists(root: Path, known: set[str], defects: Defects) -> dict[str, list[str]]:
    """The names in each list of `ImageSets/Main`, or of `ImageSets` if there is no such folder.

    Without either, lists beside the folders count (`train.txt`, or `train_list.txt`). A list of all
    images (CVAT's `default.txt`) says nothing of splits.
    """
    folder = root / "ImageSets"
    folder = folder / "Main" if (folder / "Main").is_dir() else folder
    beside = not folder.is_dir()
    paths: dict[str, Path] = {}
    others = []
    for path in sorted((root if beside else folder).glob("*")):
        if path.suffix.lower() != ".txt":
            continue
        kind = _LISTS.get(path.stem.lower().removesuffix("_list"))
        if kind is None:
            if not beside and not known <= {*_names(path, known)}:
                others.append(path.name)
        elif paths.setdefault(kind, path) != path:
            defects.other(f"lists are of {kind} images beside another", "keep one", path.name)
    of_classes = [name for name in others if _OF_A_CLASS.fullmatch(Path(name).stem.lower())]
    if of_classes and not paths:
        defects.note("lists of single classes divide nothing, so splits are drawn", of_classes[0])
    for name in others:
        if name in of_classes:
            continue
        if paths:
            defects.note("lists are called neither train, val, trainval nor test: not read", name)
        else:
            remedy = "name them so, or remove them to have splits drawn"
            defects.other("lists are called neither train, val, trainval nor test", remedy, name)
    found = {kind: _names(path, known) for kind, path in paths.items()}
    if beside:  # they may be of something else
        found = {kind: [name for name in names if name in known] for kind, names in found.items()}
        for kind in [kind for kind, names in found.items() if not names]:
            defects.note("lists name no annotated image: not read", paths[kind].name)
            del found[kind]
    return found


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
