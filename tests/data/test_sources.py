"""Digits and CIFAR; the CIFAR copies are tiny, so their checksums are set aside."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from seernet.config import DataConfig
from seernet.data.images import to_array
from seernet.data.sources import list_source
from seernet.errors import DataError


def test_digits_are_scaled_to_bytes() -> None:
    from sklearn.datasets import load_digits

    listing = list_source(DataConfig(name="digits"))
    digits = load_digits()
    assert (len(listing), listing.channels, set(listing.splits)) == (1797, 1, {"train"})
    pixels = to_array(listing.read(5).image)[0]
    assert pixels.shape == (8, 8)
    assert np.abs(pixels / 255 - digits.images[5] / 16).max() <= 0.5 / 255 + 1e-9
    assert pixels[digits.images[5] == 16].tolist() == [255] * int((digits.images[5] == 16).sum())
    assert listing.classes[listing.labels[5]] == str(digits.target[5])


def test_gray_digits_repeat_into_three_channels() -> None:
    listing = list_source(DataConfig(name="digits", channels=3))
    red, green, blue = to_array(listing.read(0).image)
    assert (red == green).all()
    assert (red == blue).all()


@pytest.fixture
def cifar_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images in each of torchvision's six batch files; image k has red value k."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    files = [name for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list]
    for place, name in enumerate(files):
        data = np.zeros((2, 3, 32, 32), dtype=np.uint8)
        data[:, 0] = np.array([2 * place, 2 * place + 1]).reshape(2, 1, 1)
        batch = {"data": data.reshape(2, -1), "labels": [0, 1]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["plane", "car"]}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, _: True)
    return folder


@pytest.mark.parametrize("inside", [False, True])
def test_cifar_copy_is_read(cifar_copy: Path, inside: bool) -> None:
    path = cifar_copy if inside else cifar_copy.parent
    listing = list_source(DataConfig(name="cifar10", path=str(path)))
    assert listing.classes == ("plane", "car")
    assert listing.labels.tolist() == [0, 1] * 6
    assert listing.splits.tolist() == ["train"] * 10 + ["test"] * 2
    pixels = to_array(listing.read(7).image)
    assert pixels.shape == (3, 32, 32)
    assert pixels[:, 3, 4].tolist() == [7, 0, 0]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_missing_cifar_without_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    monkeypatch.setattr(kind, "url", "http://127.0.0.1:9/none.tar.gz")
    with pytest.raises(DataError, match=f"{kind.tgz_md5}.*data.path"):
        list_source(DataConfig(name=name, path=str(tmp_path)))
