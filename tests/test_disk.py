"""Disks that are full or write-protected, for real: each test mounts one of its own."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from seernet.artifacts import read_json, write_json
from seernet.config import DataConfig
from seernet.data import Dataset, prepare
from seernet.errors import ArtifactError
from seernet.stage import run
from seernet.store import Store
from seernet.training.checkpoint import Progress, load_progress, save_progress

SIZE = 1 << 18  # bytes


def mount(*arguments: str) -> None:
    ended = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if ended.returncode:
        pytest.skip(f"no file system can be mounted here: {ended.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty disk of 256 KiB."""
    monkeypatch.chdir(tmp_path)  # no pipeline's folder, so that no timing is recorded
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # tensors may still be mapped


def fill(disk: Path) -> Path:
    """Leave no byte free; the file to remove again."""
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def refused(caplog: pytest.LogCaptureFixture, work) -> str:
    """What a stage says that ends because of its disk, in one line."""
    caplog.clear()
    with pytest.raises(SystemExit) as stop:
        run(work)
    assert stop.value.code == 1
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is None
    return record.getMessage()


def test_store_on_a_full_disk_keeps_what_it_has_and_goes_on_when_there_is_room(disk):
    store = Store(disk / "evaluations.sqlite")
    store.put("before", {"score": 0.5})
    filler = fill(disk)
    with pytest.raises(ArtifactError, match=r"is full.*make room"):
        for number in range(1000):
            store.put(f"during{number}", {"error": "x" * 1000})
    kept = [row.key for row in store.rows()]
    assert "before" in kept
    assert store.damage() == []
    filler.unlink()
    store.put("after", {"score": 0.25})
    assert set(store.get(["before", "after"])) == {"before", "after"}
    assert [row.key for row in store.rows()] == sorted([*kept, "after"])


def test_document_on_a_full_disk_stays_as_it_was(disk, caplog):
    path = disk / "metrics.json"
    write_json(path, {"score": 0.5})
    filler = fill(disk)
    message = refused(caplog, lambda: write_json(path, {"scores": ["x" * 1000] * 100}))
    assert message.startswith("the disk is full")
    filler.unlink()
    assert read_json(path, "fit") == {"score": 0.5}
    assert list(disk.iterdir()) == [path]


def test_progress_on_a_full_disk_stays_as_it_was(disk, caplog):
    path = disk / "progress.safetensors"
    network = torch.nn.Linear(100, 100)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    progress = Progress.start(network)
    save_progress(path, network, optimizer, progress)
    filler = fill(disk)
    progress.record(network, 1, loss=1.0, score=0.5)
    message = refused(caplog, lambda: save_progress(path, network, optimizer, progress))
    assert message.startswith("the disk is full")
    filler.unlink()
    found = load_progress(path, network, optimizer)
    assert found is not None
    assert found.epoch == 0
    assert list(disk.iterdir()) == [path]


def digits(output: Path) -> None:
    prepare(DataConfig(name="digits"), 0, output, 64, progress=False)


def test_prepared_data_on_a_full_disk_stay_as_they_were(disk, tmp_path, caplog):
    output = disk / "prepared"
    digits(output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    assert refused(caplog, lambda: digits(output)).startswith("the disk is full")
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_write_protected_folder_is_named_and_read_all_the_same(disk, tmp_path, caplog):
    write_json(disk / "metrics.json", {"score": 0.5})
    Store(disk / "evaluations.sqlite").put("a", {"score": 0.5})
    mount("-o", "remount,ro", str(disk))
    message = refused(caplog, lambda: write_json(disk / "metrics.json", {}))
    assert message.startswith("a file or folder cannot be written")
    assert str(disk) in message
    assert read_json(disk / "metrics.json", "fit") == {"score": 0.5}
    message = refused(caplog, lambda: Store(disk / "evaluations.sqlite").put("b", {}))
    assert "readonly" in message
    assert refused(caplog, lambda: digits(disk / "prepared")).startswith("a file or folder cannot")


def test_read_only_images_are_all_that_is_needed(disk, tmp_path):
    for number in range(16):
        path = disk / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    mount("-o", "remount,ro", str(disk))
    config = DataConfig(
        name="imagefolder", path=str(disk), image_size=8, storage="files", test_fraction=0.5
    )
    prepare(config, 0, tmp_path / "prepared", 2, progress=False)
    dataset = Dataset.open(tmp_path / "prepared", torch.device("cpu"), workers=0)
    images = [len(labels) for _, labels in dataset.loader("train", 2, seed=0).epoch(0)]
    assert sum(images) == dataset.info.counts["train"]
