"""Opening a prepared folder: damage, calibration images, and the seam of both storages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seernet.data import Dataset, DatasetInfo
from seernet.data.dataset import balanced
from seernet.errors import ArtifactError

MakeTree = Callable[..., Path]
Prepare = Callable[..., DatasetInfo]
Open = Callable[..., Dataset]


@pytest.fixture(params=["memory", "files"])
def storage(request: pytest.FixtureRequest, make_tree: MakeTree, prepare_in: Prepare) -> str:
    """Prepare 10 images of class a and 4 of class b, all in train, either way."""
    root = make_tree({f"{split}/{n}": c for split in ("train", "val", "test") for n, c in COUNTS})
    prepare_in(path=str(root), storage=request.param, image_size=8)
    return request.param


COUNTS = (("a", 10), ("b", 4))


def test_plain_loader_yields_all_in_order(storage: str, open_prepared: Open) -> None:
    loader = open_prepared().loader("search", 5)
    batches = list(loader.epoch(0))
    assert len(loader) == len(batches) == 3
    assert torch.cat([labels for _, labels in batches]).tolist() == [0] * 10 + [1] * 4
    images, labels = batches[-1]
    assert (images.shape, images.dtype, labels.dtype) == ((4, 3, 8, 8), torch.float32, torch.int64)
    assert images.is_contiguous()


def test_subset_is_balanced_and_deterministic(storage: str, open_prepared: Open) -> None:
    data = open_prepared()
    first, again, other = (data.subset("train", 6, seed) for seed in (0, 0, 1))
    assert first.shape == (6, 3, 8, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(data.subset("train", 100, 0)) == 14


def test_unknown_split_is_refused(storage: str, open_prepared: Open) -> None:
    with pytest.raises(ValueError, match="train, search, test"):
        open_prepared().loader("val", 5)  # type: ignore[arg-type]


def test_damaged_split_is_an_artifact_error(
    storage: str, tmp_path: Path, open_prepared: Open
) -> None:
    (path,) = (tmp_path / "prepared").glob("train.*")
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"path,label,id\nx,y,z\n"):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"train\..*prepare stage"):
            open_prepared().loader("train", 5)
    path.unlink()
    with pytest.raises(ArtifactError, match="prepare stage"):
        open_prepared().loader("train", 5)


def test_loading_leaves_the_global_generator_alone(storage: str, open_prepared: Open) -> None:
    from seernet.data import Augment

    state = torch.get_rng_state()
    data = open_prepared()
    list(data.loader("train", 4, augment=Augment(1, True)).epoch(0))
    data.subset("train", 4, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_balanced_takes_classes_in_turn() -> None:
    labels = [0] * 50 + [1] * 5 + [2] * 2
    chosen = balanced(labels, 12, seed=3)
    assert Counter(labels[position] for position in chosen) == {0: 5, 1: 5, 2: 2}
    assert len(set(chosen)) == 12
