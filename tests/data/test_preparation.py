"""The prepared folder: what it holds, that it is reproducible, and what stops it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from seernet.data import DatasetInfo
from seernet.errors import ArtifactError, DataError

MakeTree = Callable[..., Path]
Prepare = Callable[..., DatasetInfo]
SPLITS = ("train", "search", "test")


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _digit_splits(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    return {split: load_file(folder / f"{split}.safetensors") for split in SPLITS}


def test_digits_splits_are_disjoint_complete_and_stratified(
    tmp_path: Path, prepare_in: Prepare
) -> None:
    info = prepare_in(name="digits", test_fraction=1 / 3, search_fraction=0.3)
    splits = _digit_splits(tmp_path / "prepared")
    ids = np.concatenate([splits[split]["ids"] for split in SPLITS])
    assert sorted(ids.tolist()) == list(range(1797))
    assert info.counts == {split: len(splits[split]["ids"]) for split in SPLITS}
    for label in range(10):
        total = sum(int((splits[split]["labels"] == label).sum()) for split in SPLITS)
        tested = int((splits["test"]["labels"] == label).sum())
        assert abs(tested - total / 3) <= 0.5


def test_statistics_are_those_of_the_train_split(tmp_path: Path, prepare_in: Prepare) -> None:
    info = prepare_in(name="digits")
    images = _digit_splits(tmp_path / "prepared")["train"]["images"] / 255
    assert info.mean == pytest.approx([images.mean()])
    assert info.std == pytest.approx([images.std()])
    assert info.input_shape == (1, 8, 8)


def test_statistics_of_a_checkpoint_take_the_place_of_measured_ones(prepare_in: Prepare) -> None:
    info = prepare_in(name="digits", mean=[0.25], std=[0.5])
    assert (info.mean, info.std) == ((0.25,), (0.5,))
    with pytest.raises(DataError, match=r"data\.mean has 3 numbers, the images have 1 channels"):
        prepare_in(name="digits", mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])


def test_second_run_is_byte_identical(tmp_path: Path, prepare_in: Prepare) -> None:
    prepare_in(name="digits")
    first = _contents(tmp_path / "prepared")
    prepare_in(name="digits")
    assert _contents(tmp_path / "prepared") == first
    assert sorted(first) == [
        "dataset.json",
        "search.safetensors",
        "test.safetensors",
        "train.safetensors",
    ]


def test_seed_changes_split_and_fingerprint(prepare_in: Prepare) -> None:
    assert (
        prepare_in(name="digits", seed=0).fingerprint
        != prepare_in(name="digits", seed=1).fingerprint
    )


def test_digits_are_resized_on_request(tmp_path: Path, prepare_in: Prepare) -> None:
    prepare_in(name="digits", image_size=16, channels=3)
    images = _digit_splits(tmp_path / "prepared")["test"]["images"]
    assert images.shape[1:] == (3, 16, 16)


def test_saved_info_loads_equal(tmp_path: Path, prepare_in: Prepare) -> None:
    info = prepare_in(name="digits")
    assert DatasetInfo.load(tmp_path / "prepared") == info


def test_memory_tree_holds_the_pixels(
    tmp_path: Path, make_tree: MakeTree, prepare_in: Prepare
) -> None:
    root = make_tree({"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1})
    info = prepare_in(path=str(root))
    splits = _digit_splits(tmp_path / "prepared")
    assert info.storage == "memory"
    assert info.root is None
    expected = np.asarray(Image.open(root / "val/b/000.png")).transpose(2, 0, 1)
    assert splits["search"]["labels"].tolist() == [0, 1]
    assert (splits["search"]["images"][1] == expected).all()


def test_files_storage_lists_paths(
    tmp_path: Path, make_tree: MakeTree, prepare_in: Prepare
) -> None:
    root = make_tree({"train/ä, b": 4, "train/c": 4})
    info = prepare_in(path=str(root), storage="files", image_size=8)
    assert (info.storage, info.root) == ("files", str(root))
    seen = []
    for split in SPLITS:
        with (tmp_path / f"prepared/{split}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == info.counts[split]
        for row in rows:
            assert info.classes[int(row["label"])] == row["path"].split("/")[1]
        seen += [row["path"] for row in rows]
    on_disk = [path.relative_to(root).as_posix() for path in root.rglob("*.png")]
    assert sorted(seen) == sorted(on_disk)


def test_large_images_are_left_in_their_files(make_tree: MakeTree, prepare_in: Prepare) -> None:
    root = make_tree({"train/a": 3, "train/b": 3}, size=(80, 80))
    assert prepare_in(path=str(root), image_size=65).storage == "files"
    assert prepare_in(path=str(root), image_size=64).storage == "memory"
    with pytest.raises(DataError, match=r"data.image_size must be set.*80 x 80"):
        prepare_in(path=str(root))


def test_fingerprint_follows_contents_of_files(make_tree: MakeTree, prepare_in: Prepare) -> None:
    root = make_tree({"train/a": 3, "train/b": 3})
    settings = {"path": str(root), "storage": "files", "image_size": 8}
    first, again = (prepare_in(**settings).fingerprint for _ in range(2))
    Image.new("RGB", (8, 8)).save(root / "train/a/001.png")
    assert first == again
    assert prepare_in(**settings).fingerprint != first


def test_unequal_native_sizes_ask_for_image_size(make_tree: MakeTree, prepare_in: Prepare) -> None:
    root = make_tree({"train/a": 3, "train/b": 3})
    Image.new("RGB", (9, 7)).save(root / "train/b/odd.png")
    with pytest.raises(DataError, match=r"train/b/odd.png \(7 x 9\); set data.image_size"):
        prepare_in(path=str(root))
    assert prepare_in(path=str(root), image_size=8).input_shape == (3, 8, 8)


def test_all_defects_are_reported_together_and_nothing_is_written(
    tmp_path: Path, make_tree: MakeTree, prepare_in: Prepare
) -> None:
    root = make_tree({"train/a": 20, "train/b": 2, "train/empty": 0})
    for number in range(12):
        (root / f"train/a/{number:03d}.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        prepare_in(path=str(root), batch_size=64)
    text = str(caught.value)
    assert "12 of 22 images cannot be read: train/a/000.png" in text
    assert "and 2 more" in text
    assert "train/empty/" in text
    assert "'b' (2)" in text
    assert "fewer than one batch of 64" in text
    assert not (tmp_path / "prepared").exists()


def test_failure_leaves_an_older_folder_as_it_was(
    tmp_path: Path, make_tree: MakeTree, prepare_in: Prepare
) -> None:
    root = make_tree({"train/a": 3, "train/b": 3})
    prepare_in(path=str(root))
    before = _contents(tmp_path / "prepared")
    (root / "train/a/000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"train/a/000.png \(the file is empty\)"):
        prepare_in(path=str(root))
    assert _contents(tmp_path / "prepared") == before


def test_leftovers_of_a_killed_run_are_replaced(tmp_path: Path, prepare_in: Prepare) -> None:
    (tmp_path / ".prepared.partial").mkdir()
    (tmp_path / ".prepared.partial/train.safetensors").write_bytes(b"half")
    prepare_in(name="digits")
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]


def test_nothing_readable_is_an_error(make_tree: MakeTree, prepare_in: Prepare) -> None:
    root = make_tree({"train/a": 1, "train/b": 1})
    for path in root.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match="none of the 2 images can be read"):
        prepare_in(path=str(root))


def test_identical_images_across_splits_are_a_warning(
    make_tree: MakeTree, prepare_in: Prepare
) -> None:
    root = make_tree({"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2})
    (root / "test/a/001.png").write_bytes((root / "train/a/000.png").read_bytes())
    (root / "test/b/001.png").write_bytes((root / "train/b/002.png").read_bytes())
    leaks = [text for text in prepare_in(path=str(root)).warnings if "identical" in text]
    assert sum(int(text.split(": ")[1].split()[0]) for text in leaks) == 2
    assert "test/a/001.png = train/a/000.png" in " ".join(leaks)


def test_handled_modes_are_counted(make_tree: MakeTree, prepare_in: Prepare) -> None:
    root = make_tree({"train/a": 3, "train/b": 3})
    for number in range(2):
        Image.new("L", (8, 8), number).save(root / f"train/a/gray{number}.png")
    assert "gray images read as RGB: 2" in prepare_in(path=str(root)).warnings


def test_constant_channel_is_kept_and_warned_of(make_tree: MakeTree, prepare_in: Prepare) -> None:
    root = make_tree({"train/a": 3, "train/b": 3})
    for path in root.rglob("*.png"):
        pixels = np.asarray(Image.open(path)).copy()
        pixels[:, :, 2] = 7
        Image.fromarray(pixels).save(path)
    info = prepare_in(path=str(root))
    assert info.std[2] == 1.0
    assert "channels that never change: [2]" in info.warnings


def test_single_color_data_is_an_error(make_tree: MakeTree, prepare_in: Prepare) -> None:
    root = make_tree({"train/a": 3, "train/b": 3})
    for path in root.rglob("*.png"):
        Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
    with pytest.raises(DataError, match="single color"):
        prepare_in(path=str(root))


@pytest.mark.parametrize(
    ("config", "shown"),
    [({"storage": "files"}, "has no image files"), ({"image_size": 1000}, "1.8 GB")],
)
def test_arrays_must_fit_in_memory(prepare_in: Prepare, config: dict, shown: str) -> None:
    with pytest.raises(DataError, match=shown):
        prepare_in(name="digits", **config)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 99}', '{"version": 1}', '{"version": 1, "image_size": [8]}'],
)
def test_damaged_info_is_an_artifact_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"dataset\.json.*prepare"):
        DatasetInfo.load(tmp_path)


def test_missing_info_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="prepare"):
        DatasetInfo.load(tmp_path / "none")


def test_extra_key_in_info_is_an_artifact_error(tmp_path: Path, prepare_in: Prepare) -> None:
    prepare_in(name="digits")
    path = tmp_path / "prepared/dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "surprise": 1}))
    with pytest.raises(ArtifactError):
        DatasetInfo.load(tmp_path / "prepared")
