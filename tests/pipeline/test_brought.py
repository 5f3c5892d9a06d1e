"""What users bring: images of many kinds, a network of their own, its checkpoint; several limits.

Nothing is trained over epochs, and the repository has no commit, so no training curve can be drawn.
"""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file

pytestmark = pytest.mark.pipeline

NETWORK = """
from torch import nn
from mypkg.parts import unit

def make(num_classes, in_channels, width):
    return nn.Sequential(
        unit(in_channels, width), unit(width, 2 * width, 2), unit(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, num_classes),
    )
"""
PARTS = """
from torch import nn

def unit(inputs, outputs, stride=1):
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())
"""
CHECKPOINT = """
import torch
from safetensors.torch import save_file
from mypkg.nets import make
torch.manual_seed(1)
save_file(make(3, 3, 16).state_dict(), "checkpoints/net.safetensors")
"""
KINDS = ("L", "RGBA", "P", "RGB")


def draw_pictures(folder):
    """72 images of three classes: gray, with alpha, with palette, and plain; of several sizes."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(("dark", "middle", "light")):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(24):
            shape = (12 + number % 3 * 7, 14 + number % 4 * 5, 3)
            pixels = generator.integers(80 * label, 80 * label + 90, shape, dtype=np.uint8)
            image = Image.fromarray(pixels).convert(KINDS[number % 4])
            image.save(folder / "train" / name / f"{number}.png")


@pytest.fixture(scope="module")
def brought(new_workspace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("brought")
    workspace = new_workspace(folder, "brought.yaml", commit=False)
    draw_pictures(folder / "data/raw/pictures")
    (folder / "mypkg").mkdir()
    (folder / "checkpoints").mkdir()
    for name, text in (("__init__", ""), ("nets", NETWORK), ("parts", PARTS)):
        (folder / f"mypkg/{name}.py").write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "-c", CHECKPOINT], cwd=folder, check=True)
    workspace.first_run = workspace.repro("collect")
    return workspace


def test_brought_data_network_and_checkpoint_reach_the_table(brought):
    folder = brought.folder
    assert brought.first_run[-1] == "collect"
    info = json.loads((folder / "data/prepared/dataset.json").read_text())
    assert info["classes"] == ["dark", "light", "middle"]
    assert (info["channels"], sum(info["counts"].values())) == (3, 72)
    theirs = load_file(folder / "checkpoints/net.safetensors")
    baseline = load_file(folder / "models/baseline/model.safetensors")
    assert theirs.keys() == baseline.keys()
    assert all(baseline[key].equal(value) for key, value in theirs.items())
    assert json.loads((folder / "results/metrics/pretrain.json").read_text())["train_macs"] == 0


def test_networks_keep_every_limit_of_their_budget(brought):
    table = pd.read_csv(brought.folder / "results/tradeoff.csv")
    assert "seernet" in set(table["method"])
    assert (table["bops_ratio"] <= 0.03).all()
    assert (table["size_bytes"] <= 6000).all()
    assert (table["macs"] <= 700_000).all()


def test_run_without_epochs_and_commits_is_finished(brought):
    for stage in ("pretrain", "finetune/tight"):
        assert list((brought.folder / f"results/training/{stage}/plots/metrics").iterdir()) == []
    assert brought.repro("collect") == []
