"""Several processes train as one does, end together, and go on where they stopped."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from seernet.config import DataConfig
from seernet.data import Augment, Dataset, prepare
from seernet.distributed import ALONE, Team, joined
from seernet.errors import ConfigError
from seernet.evaluation import shares, together

SCRIPT = Path(__file__).with_name("trainings.py")
FROZEN = ("plain", "files", "quantized")  # their images do not see each other
ALL = (*FROZEN, "norms", "boxes")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders `digits`, `files` and `boxes` of prepared data."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 5), ("test", 2)):
        for darkest, name in ((0, "a"), (20, "b")):
            folder = root / "tree" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(darkest, darkest + 200, (16, 20), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    tree = {"path": str(root / "tree"), "storage": "files", "image_size": 14, "channels": 1}
    scenes = {"image_size": 48, "search_fraction": 0.1, "test_fraction": 0.8}
    for name, config in {
        "digits": DataConfig(name="digits", search_fraction=0.2, test_fraction=0.2),
        "files": DataConfig(name="imagefolder", **tree),
        "boxes": DataConfig(name="digit-scenes", **scenes),
    }.items():
        prepare(config, 0, root / name, 8, progress=False)
    return root


@pytest.fixture(scope="module")
def trainings():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("trainings", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def alone(data, trainings):
    """Each training by this process: its network's state, and its record."""
    made = {}
    for name in ALL:
        network, record = trainings.train(ALONE, name, data)
        made[name] = network.state_dict(), json.loads(json.dumps(record))
    return made


def torchrun(output, data, *names):
    """Make trainings with two processes."""
    output.mkdir(exist_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launcher, SCRIPT, output, data, *names]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def made_by(output, name, rank):
    """State and record of one process after one training."""
    place = output / f"{name}.{rank}"
    return load_file(f"{place}.safetensors"), json.loads(Path(f"{place}.json").read_text())


@pytest.fixture(scope="module")
def by_two(data, tmp_path_factory):
    """All trainings by two processes, and last one of which they have different progress."""
    output = tmp_path_factory.mktemp("by_two")
    ended = torchrun(output, data, *ALL, "plain-different")
    return SimpleNamespace(output=output, log=ended.stderr, status=ended.returncode)


def losses(record):
    return [row["loss"] for row in record["history"]]


def scores(record):
    return [row["score"] for row in record["history"]] + [record["best"], record["last"]["score"]]


def assert_same_state(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.pipeline
@pytest.mark.parametrize("name", FROZEN)
def test_two_processes_have_the_loss_curve_of_one(alone, by_two, name):
    expected_state, expected = alone[name]
    state, record = made_by(by_two.output, name, 0)
    assert losses(record) == pytest.approx(losses(expected), rel=1e-5)
    assert scores(record) == pytest.approx(scores(expected), abs=0.008)  # two images of `digits`
    for key, value in expected_state.items():
        torch.testing.assert_close(state[key], value, rtol=1e-3, atol=1e-4)
    assert losses(record)[-1] < losses(record)[0]


@pytest.mark.pipeline
@pytest.mark.parametrize("name", ALL)
def test_all_processes_have_the_same_result_to_the_bit(by_two, name):
    (state, leader), (other_state, other) = (made_by(by_two.output, name, r) for r in (0, 1))
    assert (leader.pop("told"), other.pop("told")) == (len(leader["history"]), 0)
    assert leader == other
    assert_same_state(state, other_state)


@pytest.mark.pipeline
def test_batch_norm_on_cpus_takes_the_statistics_of_each_share(alone, by_two):
    _, record = made_by(by_two.output, "norms", 0)
    assert losses(record) != pytest.approx(losses(alone["norms"][1]), rel=1e-5)
    assert losses(record) == pytest.approx(losses(alone["norms"][1]), rel=0.02)
    assert "batch norm takes the statistics of each process's share" in by_two.log


@pytest.mark.pipeline
def test_two_processes_find_the_boxes_that_one_finds(alone, by_two):
    _, expected = alone["boxes"]
    _, record = made_by(by_two.output, "boxes", 0)
    assert record["first"] == pytest.approx(expected["first"], abs=1e-6)
    assert losses(record) == pytest.approx(losses(expected), rel=0.01)
    assert len(record["found"]) == 5
    assert sum(len(each["labels"]) for each in record["found"]) > 5


@pytest.mark.pipeline
def test_processes_that_would_train_different_things_are_refused(by_two):
    assert by_two.status == 1
    assert by_two.log.count("error: the processes would not train the same") == 2


def two_machines(output, data, name):
    """Make a training with two processes that nothing but their connection holds together."""
    output.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, output, data, name],
            env={**os.environ, **place, "RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    logs = [process.communicate(timeout=120)[1] for process in processes]
    return [process.returncode for process in processes], logs


@pytest.mark.pipeline
def test_killed_process_ends_all_and_a_rerun_has_the_result_of_an_undisturbed_one(
    data, by_two, alone, trainings, tmp_path
):
    output = tmp_path / "output"
    status, (log, _) = two_machines(output, data, "plain-killed")
    assert status == [1, -signal.SIGKILL]
    assert "error: another process of this training ended" in log
    kept = output / "progress" / "plain.safetensors"
    copied = shutil.copy(kept, tmp_path / "copy.safetensors")

    again = torchrun(output, data, "plain-kept")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("going on after epoch 1 ") == 1
    state, record = made_by(output, "plain-kept", 0)
    expected_state, expected = made_by(by_two.output, "plain", 0)
    assert record == expected
    assert_same_state(state, expected_state)
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]  # no copy is left

    _, record = trainings.train(ALONE, "plain", data, checkpoint=Path(copied))
    assert losses(record) == pytest.approx(losses(alone["plain"][1]), rel=1e-5)


# --- without other processes ---


@pytest.mark.parametrize(("count", "size"), [(8, 2), (7, 2), (7, 3), (1, 4), (4, 3)])
def test_shares_are_equally_long_and_cover_the_batch_in_order(count, size):
    shares = [Team(rank, size).share(count) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1
    together = [index for share in shares for index in share]
    assert together == list(range(len(together)))
    assert count <= len(together) < count + size


@pytest.mark.parametrize("name", ["files", "boxes"])
@pytest.mark.parametrize("augment", [None, Augment(flip=True)])
def test_process_reads_its_share_of_each_batch_as_it_would_be_read_alone(data, name, augment):
    dataset = Dataset.open(data / name, torch.device("cpu"), workers=0)
    team = Team(1, 2)
    whole, shared = (
        list(each.loader("train", 7, augment=augment, seed=1).epoch(2))
        for each in (dataset, shares.TeamDataset(dataset, team))
    )
    assert len(whole) == len(shared)
    for (images, targets), (part, same) in zip(whole, shared, strict=True):
        own = [i % len(images) for i in team.share(len(images))]
        assert torch.equal(part[own], images[own])
        if name == "files":
            assert torch.equal(same, targets)
            others = sorted(set(range(len(images))) - set(own))
            assert not part[others].any()
        else:
            assert all(
                torch.equal(one[key], other[key])
                for one, other in zip(targets, same, strict=True)
                for key in one
            )


def test_norms_are_synchronized_in_a_copy_with_the_same_tensors():
    class Own(nn.BatchNorm2d):
        pass

    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), Own(4))
    twin = together._synchronized(network)
    assert [type(module) for module in twin] == [nn.Conv2d, nn.SyncBatchNorm, Own]
    assert type(network[1]) is nn.BatchNorm2d
    tensors = network.state_dict(keep_vars=True)
    assert all(value is tensors[key] for key, value in twin.state_dict(keep_vars=True).items())


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1000")
    monkeypatch.setenv("LOCAL_RANK", str(torch.cuda.device_count()))
    with pytest.raises(ConfigError, match="GPU of its own"), joined("cuda"):
        pass
