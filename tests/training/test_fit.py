"""Training keeps the best epoch, and an interruption leaves no trace in the result."""

import copy
import logging
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from seernet.compression import calibrate, compress
from seernet.config import DataConfig, FinetuneConfig, TrainConfig
from seernet.data import Augment, Dataset, prepare
from seernet.models import trace
from seernet.models.resnet20 import resnet20
from seernet.policy import Policy
from seernet.training import (
    Classification,
    Plan,
    fit,
    remove_progress,
    score,
    seeded,
    train_macs,
)

EPOCHS = 4


def plan(**changes):
    config = TrainConfig(epochs=EPOCHS, batch_size=64, learning_rate=0.2, warmup_epochs=1.0)
    return Plan(**({"config": config, "augment": Augment(1), "seed": 3} | changes))


def assert_same_state(one, other):
    assert list(one.state_dict()) == list(other.state_dict())
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def stop_after(epoch):
    def on_epoch(row):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return on_epoch


def test_digits_are_learned(dataset, small_network):
    model = small_network()
    before = score(model, dataset.loader("search", 256).epoch(0), Classification())
    found = fit(model, dataset, plan())
    assert before["score"] < 0.3
    assert found.search_score > 0.9
    assert [row["epoch"] for row in found.history] == [1, 2, 3, 4]
    assert not model.training


def test_network_of_the_best_epoch_is_kept(dataset, small_network):
    """The head is silenced before the last scoring, so the last epoch is the worst."""
    calls = 0

    def spoil(model):
        nonlocal calls
        calls += 1
        if calls == 3:
            nn.init.zeros_(model[-1].weight)
            nn.init.zeros_(model[-1].bias)

    model = small_network()
    config = TrainConfig(epochs=3, batch_size=64, learning_rate=0.2)
    found = fit(model, dataset, plan(config=config, before_score=spoil))
    scores = [row["score"] for row in found.history]
    assert found.best_epoch in (1, 2)
    assert found.search_score == max(scores) > scores[2]
    again = score(model, dataset.loader("search", 256).epoch(0), Classification())
    assert again["score"] == found.search_score


def test_no_epochs_score_the_network_as_it_is(dataset, small_network):
    model = small_network()
    found = fit(model, dataset, plan(config=TrainConfig(epochs=0)))
    expected = score(model, dataset.loader("search", 256).epoch(0), Classification())
    assert (found.best_epoch, found.history) == (0, [])
    assert found.search_score == expected["score"]
    assert_same_state(model, small_network())


def test_equal_runs_are_equal_and_seeds_count(dataset, small_network):
    one, two, other = small_network(), small_network(), small_network()
    assert fit(one, dataset, plan()) == fit(two, dataset, plan())
    fit(other, dataset, plan(seed=4))
    assert_same_state(one, two)
    assert not torch.equal(one[-1].weight, other[-1].weight)


@pytest.mark.parametrize("stop", [1, EPOCHS])
def test_interrupted_run_equals_an_uninterrupted_one(dataset, small_network, tmp_path, stop):
    whole, cut = small_network(), small_network()
    rows = []
    expected = fit(whole, dataset, plan(on_epoch=rows.append))
    checkpoint = tmp_path / "progress" / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(cut, dataset, plan(checkpoint=checkpoint, on_epoch=stop_after(stop)))
    resumed, seen = small_network(seed=9), []
    found = fit(resumed, dataset, plan(checkpoint=checkpoint, on_epoch=seen.append))
    assert found == expected
    assert seen == rows
    assert_same_state(resumed, whole)


def quantized_network(dataset):
    """A compressed residual network in color, with learned steps and stored maps."""
    shape = dataset.info.input_shape
    with seeded(1):
        model = resnet20(len(dataset.info.classes), in_channels=shape[0], width=2).eval()
    graph = trace(model, shape)
    bits = {layer.name: 4 for layer in graph.layers}
    policy = Policy({graph.groups[0].name: 0.5}, bits, bits)
    network = compress(model, policy, graph)
    calibrate(network, dataset.subset("train", 64, 0))
    return network


@pytest.mark.parametrize("channels", [1, 3])
def test_interrupted_quantized_run_equals_an_uninterrupted_one(tmp_path, channels):
    few = DataConfig(name="digits", channels=channels, search_fraction=0.1, test_fraction=0.6)
    prepare(few, 0, tmp_path / "data", 64, progress=False)
    dataset = Dataset.open(tmp_path / "data", torch.device("cpu"), workers=0)
    config = FinetuneConfig(epochs=2, batch_size=256, learning_rate=0.05, step_learning_rate=0.01)
    whole = quantized_network(dataset)
    cut, resumed = copy.deepcopy(whole), copy.deepcopy(whole)
    steps = [parameter.detach().clone() for parameter in whole.parameters()]
    expected = fit(whole, dataset, plan(config=config))
    checkpoint = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(cut, dataset, plan(config=config, checkpoint=checkpoint, on_epoch=stop_after(1)))
    assert fit(resumed, dataset, plan(config=config, checkpoint=checkpoint)) == expected
    assert_same_state(resumed, whole)
    moved = [not torch.equal(a, b) for a, b in zip(steps, whole.parameters(), strict=True)]
    assert all(moved)  # quantizer steps learn too


@pytest.fixture(scope="module")
def undisturbed(digits, small_network):
    """A plain run from start to end: its network and what `fit` returned."""
    model = small_network()
    dataset = Dataset.open(digits, torch.device("cpu"), workers=0)
    return model, fit(model, dataset, plan())


@pytest.mark.parametrize("damage", ["truncated", "empty", "of another network", "without history"])
def test_damaged_progress_is_a_warning_and_a_fresh_start(
    dataset, small_network, undisturbed, tmp_path, caplog, damage
):
    checkpoint = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(small_network(), dataset, plan(checkpoint=checkpoint, on_epoch=stop_after(EPOCHS - 1)))
    data = checkpoint.read_bytes()
    if damage == "truncated":
        checkpoint.write_bytes(data[:-100])
    elif damage == "empty":
        checkpoint.write_bytes(b"")
    elif damage == "of another network":
        checkpoint.write_bytes(data.replace(b'"model/6.weight"', b'"model/9.weight"'))
    else:
        save_file(load_file(checkpoint), checkpoint)
    whole, expected = undisturbed
    fresh = small_network()
    with caplog.at_level(logging.WARNING):
        assert fit(fresh, dataset, plan(checkpoint=checkpoint)) == expected
    assert "training starts again" in caplog.text
    assert_same_state(fresh, whole)


def test_remove_progress_takes_what_a_killed_writer_left(tmp_path):
    keep = tmp_path / "other.safetensors"
    for name in ("run.safetensors", "run.123.tmp", keep.name):
        (tmp_path / name).touch()
    remove_progress(tmp_path / "run.safetensors")
    remove_progress(tmp_path / "run.safetensors")
    assert list(tmp_path.iterdir()) == [keep]


def test_teacher_is_used_only_if_asked_for(dataset, small_network):
    config = FinetuneConfig(epochs=1, batch_size=256, warmup_epochs=0.0)
    soft = config.model_copy(update={"distillation": 0.5})
    teacher = small_network(seed=8).eval()
    plain, unmoved, taught = small_network(), small_network(), small_network()
    fit(plain, dataset, plan(config=config))
    fit(unmoved, dataset, plan(config=config, teacher=teacher))
    fit(taught, dataset, plan(config=soft, teacher=teacher))
    assert_same_state(plain, unmoved)
    assert not torch.equal(plain[-1].weight, taught[-1].weight)


def test_train_macs_count_three_passes_over_full_batches():
    config = TrainConfig(epochs=2, batch_size=30)
    assert train_macs(config, macs=10, images=100) == 3 * 10 * 2 * 3 * 30
    assert train_macs(config, macs=10, images=20) == 3 * 10 * 2 * 1 * 20


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from torch import nn
from seernet.config import TrainConfig
from seernet.data import Augment, Dataset
from seernet.training import Plan, fit, seeded

torch.set_num_threads(int(sys.argv[3]))
dataset = Dataset.open(Path(sys.argv[1]), torch.device("cpu"), workers=0)
with seeded(0):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
config = TrainConfig(epochs=3, batch_size=64, warmup_epochs=0.0)

def die(row):
    if row["epoch"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)

fit(model, dataset, Plan(config, Augment(), 0, checkpoint=Path(sys.argv[2]), on_epoch=die))
"""


@pytest.mark.pipeline
def test_killed_run_equals_an_uninterrupted_one(digits, dataset, tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    script = textwrap.dedent(KILLED)
    threads = str(torch.get_num_threads())  # they decide in what order sums are rounded
    command = [sys.executable, "-c", script, digits, checkpoint, threads]
    ended = subprocess.run(command, check=False)
    assert ended.returncode == -signal.SIGKILL
    config = TrainConfig(epochs=3, batch_size=64, warmup_epochs=0.0)
    models = []
    for path in (checkpoint, None):
        with seeded(0):
            models.append(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
        fit(models[-1], dataset, Plan(config, Augment(), 0, checkpoint=path))
    assert_same_state(*models)
