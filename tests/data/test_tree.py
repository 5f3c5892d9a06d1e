"""Which folder becomes which split, and what is wrong with a tree."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from seernet.data.tree import list_tree
from seernet.errors import DataError

MakeTree = Callable[..., Path]


def _splits(root: Path) -> dict[str, str]:
    listing = list_tree(str(root), 3)
    folders = [name.split("/")[0] for name in listing.names]
    return dict(zip(folders, listing.splits.tolist(), strict=True))


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["train"], {"train": "train"}),
        (["train", "test"], {"train": "train", "test": "test"}),
        (["train", "val"], {"train": "train", "val": "test"}),
        (["train", "validation"], {"train": "train", "validation": "test"}),
        (["train", "val", "test"], {"train": "train", "val": "search", "test": "test"}),
    ],
)
def test_folder_becomes_split(make_tree: MakeTree, folders: list[str], expected: dict) -> None:
    root = make_tree({f"{folder}/{name}": 2 for folder in folders for name in ("cat", "dog")})
    assert _splits(root) == expected


def test_labels_follow_sorted_class_names(make_tree: MakeTree) -> None:
    listing = list_tree(str(make_tree({"train/dog": 1, "train/cat": 2})), 3)
    assert listing.classes == ("cat", "dog")
    assert listing.names == ["train/cat/000.png", "train/cat/001.png", "train/dog/000.png"]
    assert listing.labels.tolist() == [0, 0, 1]


def test_names_may_have_accents_and_spaces(make_tree: MakeTree) -> None:
    listing = list_tree(str(make_tree({"train/große Katze": 1, "train/犬, klein": 1})), 3)
    assert listing.classes == ("große Katze", "犬, klein")
    assert listing.complaints == ()
    assert listing.read(1).image.size == (8, 8)


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system normalises by itself")
def test_one_class_in_two_unicode_spellings_is_one_class(make_tree: MakeTree) -> None:
    spellings = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    root = make_tree(
        {f"train/{spellings[0]}": 1, f"test/{spellings[1]}": 1, "train/tee": 1, "test/tee": 1}
    )
    listing = list_tree(str(root), 3)
    assert (listing.classes, listing.complaints) == (("café", "tee"), ())


def test_folders_inside_a_class_belong_to_it(make_tree: MakeTree) -> None:
    listing = list_tree(str(make_tree({"train/a/x/y": 2, "train/b": 1})), 3)
    assert listing.classes == ("a", "b")
    assert listing.labels.tolist() == [0, 0, 1]


def test_litter_is_ignored(make_tree: MakeTree) -> None:
    root = make_tree({"train/a": 1, "train/b": 1, "train/.ipynb_checkpoints": 1})
    for name in (".DS_Store", "Thumbs.db", "readme.txt", "._000.png"):
        (root / "train/a" / name).write_bytes(b"x")
        (root / "train" / name).write_bytes(b"x")
    listing = list_tree(str(root), 3)
    assert (len(listing), listing.classes, listing.complaints) == (2, ("a", "b"), ())


def test_strange_file_is_a_complaint(make_tree: MakeTree) -> None:
    root = make_tree({"train/a": 1, "train/b": 1})
    (root / "train/a/paper.pdf").write_bytes(b"x")
    (complaint,) = list_tree(str(root), 3).complaints
    assert "train/a/paper.pdf" in complaint


def test_all_defects_are_collected(make_tree: MakeTree) -> None:
    root = make_tree({"train/a": 1, "train/b": 1, "test/b": 1, "test/c": 1, "train/nothing": 0})
    Image.new("L", (2, 2)).save(root / "train/loose.png")
    text = "\n".join(list_tree(str(root), 3).complaints)
    for part in (
        "without images: train/nothing/",
        "outside of class folders: train/loose.png",
        "classes of train/ without images in test/: a;",
        "classes of test/ without images in train/: c;",
    ):
        assert part in text


def test_long_lists_are_cut(make_tree: MakeTree) -> None:
    root = make_tree({"train/a": 1, "train/b": 1} | {f"train/empty{i:02d}": 0 for i in range(13)})
    (complaint,) = list_tree(str(root), 3).complaints
    assert "train/empty09/ and 3 more" in complaint


def test_one_class_is_a_complaint(make_tree: MakeTree) -> None:
    (complaint,) = list_tree(str(make_tree({"train/cat": 3})), 3).complaints
    assert "at least 2 classes" in complaint
    assert "cat" in complaint


@pytest.mark.parametrize("path", [None, "nowhere/at/all"])
def test_missing_root_is_an_error(path: str | None) -> None:
    with pytest.raises(DataError, match=r"data\.path"):
        list_tree(path, 3)


@pytest.mark.parametrize("folder", [".", "train"])
def test_flat_folder_is_explained(make_tree: MakeTree, folder: str) -> None:
    with pytest.raises(DataError, match=r"holds 3 images directly.*train/<class>/<image>"):
        list_tree(str(make_tree({folder: 3})), 3)


def test_classes_without_train_folder_are_explained(make_tree: MakeTree) -> None:
    with pytest.raises(DataError, match=r"no folder train/ \(it has: cat, dog\)"):
        list_tree(str(make_tree({"dog": 1, "cat": 1})), 3)


def test_two_validation_folders_are_an_error(make_tree: MakeTree) -> None:
    with pytest.raises(DataError, match="both val/ and validation/"):
        list_tree(str(make_tree({"train/a": 1, "val/a": 1, "validation/a": 1})), 3)


def test_unknown_folder_is_a_warning(make_tree: MakeTree) -> None:
    listing = list_tree(str(make_tree({"train/a": 1, "train/b": 1, "valid/a": 1})), 3)
    assert "valid/" in listing.warnings[0]


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="needs byte file names")
def test_name_that_is_not_utf8_is_a_complaint(make_tree: MakeTree) -> None:
    root = make_tree({"train/a": 1, "train/b": 1})
    Path(os.fsdecode(os.fsencode(root / "train/a") + b"/\xff.png")).write_bytes(b"x")
    (complaint,) = list_tree(str(root), 3).complaints
    assert "not UTF-8" in complaint
