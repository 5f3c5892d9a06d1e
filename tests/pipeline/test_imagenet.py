"""The ImageNet presets at 224 pixels, through every stage, on a tree that stands in for it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from seernet.config import load

pytestmark = pytest.mark.pipeline

PRESETS = Path(__file__).resolve().parents[2] / "presets"
CLASSES = 8
CHECKPOINT = """
import sys
import torch
from torchvision.models import get_model
torch.manual_seed(0)
torch.save(get_model(sys.argv[1], num_classes=int(sys.argv[2])).state_dict(), sys.argv[3])
"""
SMALL = {
    "data": {"workers": 0, "search_fraction": 0.25},
    "space": {"pruning_step": 0.25, "weight_bits": [2, 4, 8], "act_bits": [2, 4, 8]},
    "sample": {"evaluations": 5, "initial": 5, "batch": 2, "population": 16, "workers": 1},
    "evaluation": {"steps": 1, "batch_size": 4, "calibration_images": 2, "threads": 1},
    "predictor": {"folds": 2, "members": 2, "iterations": 20},
    "optimize": {"starts": 8, "iterations": 10},
    "finetune": {"epochs": 1, "batch_size": 4, "calibration_images": 4, "threads": 1},
    "report": {"front_points": 4, "dpi": 50},
}


def draw_tree(root):
    """48 photographs' stand-ins to train on and 16 to test on, of several sizes."""
    generator = np.random.default_rng(0)
    for folder, count in (("train", 6), ("val", 2)):
        for label in range(CLASSES):
            (root / folder / f"n{label:08d}").mkdir(parents=True)
            for number in range(count):
                shape = (230 + 20 * (number % 2), 260, 3)
                pixels = generator.integers(28 * label, 28 * label + 60, shape, dtype=np.uint8)
                path = root / folder / f"n{label:08d}" / f"{number}.JPEG"
                Image.fromarray(pixels).save(path, quality=70)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        pytest.param("resnet50", marks=pytest.mark.slow),
        pytest.param("mobilenetv2", marks=pytest.mark.slow),
    ],
)
def test_preset_reaches_the_report(new_workspace, tmp_path, name):
    workspace = new_workspace(tmp_path)
    document = load(PRESETS / f"imagenet-{name}.yaml").model_dump()
    assert document["data"]["storage"] == "files"
    network = document["model"]["name"].removeprefix("torchvision:")
    document["model"] |= {"weights": None, "checkpoint": "weights.pth"}
    document["budgets"] = {"small": {"bops_ratio": 0.02}}
    document["pretrain"] |= {"batch_size": 4, "threads": 1}
    document["sample"]["evaluation"] |= SMALL["evaluation"]
    for section in ("data", "space", "sample", "predictor", "optimize", "finetune", "report"):
        document[section] |= SMALL[section]
    workspace.params.write_text(yaml.safe_dump(document), encoding="utf-8")
    draw_tree(tmp_path / "data/raw/imagenet")
    command = [sys.executable, "-c", CHECKPOINT, network, str(CLASSES), "weights.pth"]
    subprocess.run(command, cwd=tmp_path, check=True)

    assert workspace.repro()[-1] == "report"

    prepared = sum(path.stat().st_size for path in (tmp_path / "data/prepared").rglob("*"))
    assert prepared < 48 * 3 * 224 * 224 / 100  # a list of files, not their pixels
    table = pd.read_csv(tmp_path / "results/tradeoff.csv")
    assert set(table["method"]) >= {"seernet", "uniform"}
    assert (table["bops_ratio"] <= 0.02).all()
    metrics = json.loads((tmp_path / "results/metrics/finetune/small.json").read_text())
    (run,) = metrics["runs"]
    assert 0.0 <= run["test_score"] <= run["test_top5"] <= 1.0
    assert 0.0 <= metrics["baseline_score"] <= metrics["baseline_top5"] <= 1.0
