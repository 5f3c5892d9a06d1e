"""Loaders over image files: worker processes change nothing, broken files are named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seernet.data import Augment, Dataset, DatasetInfo
from seernet.errors import DataError

MakeTree = Callable[..., Path]
Prepare = Callable[..., DatasetInfo]
Open = Callable[..., Dataset]
AUGMENT = Augment(flip=True)


@pytest.fixture
def root(make_tree: MakeTree, prepare_in: Prepare) -> Path:
    """A prepared tree of 20 x 16 images, seen at 14 x 14."""
    root = make_tree({"train/a": 8, "train/b": 8}, size=(20, 16))
    prepare_in(path=str(root), storage="files", image_size=14)
    return root


def _epoch(data: Dataset, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(data.loader("train", 3, augment=AUGMENT, seed=7).epoch(number))
    return torch.cat([images for images, _ in batches]), torch.cat(
        [labels for _, labels in batches]
    )


def test_result_does_not_depend_on_workers(root: Path, open_prepared: Open) -> None:
    alone, many = (_epoch(open_prepared(workers=workers), 2) for workers in (0, 2))
    assert torch.equal(alone[0], many[0])
    assert torch.equal(alone[1], many[1])


def test_epoch_does_not_depend_on_earlier_epochs(root: Path, open_prepared: Open) -> None:
    used = open_prepared()
    first = _epoch(used, 0)
    assert torch.equal(_epoch(used, 1)[0], _epoch(open_prepared(), 1)[0])
    assert not torch.equal(first[0], _epoch(used, 1)[0])


def test_training_drops_an_incomplete_batch(root: Path, open_prepared: Open) -> None:
    data = open_prepared()
    count = data.info.counts["train"]
    assert count % 3 != 0
    assert len(_epoch(data, 0)[1]) == len(data.loader("train", 3, augment=AUGMENT)) * 3 < count
    loader = data.loader("train", 100, augment=AUGMENT)
    ((images, _),) = loader.epoch(0)
    assert len(images) == count


def test_evaluation_takes_the_center(
    tmp_path: Path, make_tree: MakeTree, prepare_in: Prepare, open_prepared: Open
) -> None:
    root = make_tree({"train/a": 3, "train/b": 3, "test/b": 1})
    pixels = np.zeros((16, 20, 3), dtype=np.uint8)
    pixels[1:15, 3:17] = 255  # 16 = 14 * 256/224 rows, so nothing is resized; 14 x 14 are cut
    (root / "test/a").mkdir()
    Image.fromarray(pixels).save(root / "test/a/center.png")
    info = prepare_in(path=str(root), storage="files", image_size=14)
    images, labels = next(iter(open_prepared().loader("test", 1).epoch(0)))
    white = (1 - torch.tensor(info.mean)) / torch.tensor(info.std)
    assert labels.tolist() == [0]
    torch.testing.assert_close(images[0], white.view(3, 1, 1).expand(3, 14, 14))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("fate", ["vanished", "broken"])
def test_lost_file_is_named(root: Path, open_prepared: Open, workers: int, fate: str) -> None:
    data = open_prepared(workers=workers)
    loader = data.loader("train", 2)
    for path in root.rglob("*.png"):
        path.unlink() if fate == "vanished" else path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError) as caught:
        list(loader.epoch(0))
    assert str(root / "train/a") in str(caught.value)
    assert "prepare stage" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_relative_root_starts_from_the_working_directory(
    root: Path, prepare_in: Prepare, open_prepared: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    info = prepare_in(path=root.name, storage="files", image_size=14)
    assert info.root == root.name
    assert open_prepared().subset("search", 2, 0).shape == (2, 3, 14, 14)


EPOCHS = """
from pathlib import Path
import torch
from seernet.data import Augment, Dataset

data = Dataset.open(Path("prepared"), torch.device("cpu"), 0)

def resident():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024  # MB

def growth(split, augment, keep):
    kept, held = [], []
    for images, _ in data.loader(split, 2, augment=augment).epoch(0):
        held.append(resident())  # from the first batch on, for which much is imported
        if keep:
            kept.append(images)
    assert len(held) == 80
    return max(held) - held[0]

print(growth("train", Augment(flip=True), False), growth("search", None, False))
print(growth("search", None, True))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_bounded_by_the_batch(
    tmp_path: Path, make_tree: MakeTree, prepare_in: Prepare
) -> None:
    """Epochs of 160 images, 96 MB as the network sees them, against one that keeps them all."""
    root = make_tree({f"{part}/{name}": 80 for part in ("train", "val", "test") for name in "ab"})
    prepare_in(path=str(root), storage="files", image_size=224)
    command = [sys.executable, "-c", EPOCHS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    train, search, kept = map(float, done.stdout.split())
    assert max(train, search) < 20
    assert kept > 80
