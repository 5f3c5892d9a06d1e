"""The examples do what the README says of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.pipeline
def test_own_training_loop_finds_policies_within_both_budgets() -> None:
    lines = run("own_training_loop.py").splitlines()
    baseline, *budgets = [[float(x) for x in re.findall(r"[\d.]+(?:e\+\d+)?", x)] for x in lines]
    assert baseline[0] > 0.9
    for share, predicted, accuracy, bops in budgets:
        assert bops <= share / 100 * baseline[1] * 1.005  # as printed
        assert 0.5 < predicted <= 1.0
        assert accuracy > 0.8


def test_exported_file_runs_with_numpy_alone(tmp_path: Path) -> None:
    from seernet.config import ModelConfig
    from seernet.export import Shipped
    from seernet.export.onnx_file import write_onnx
    from seernet.models import build, trace
    from seernet.policy import Policy

    shape = (3, 16, 16)
    model = build(ModelConfig(name="resnet20", arguments={"width": 4}), 3, shape).eval()
    graph = trace(model, shape, 3)
    full = dict.fromkeys((layer.name for layer in graph.layers), 32)
    policy = Policy({group.name: 0.0 for group in graph.groups}, full, full)
    classes = ("cat", "Hündin", "三")
    shipped = Shipped(
        ModelConfig(name="resnet20"),
        policy,
        graph,
        "classification",
        classes,
        (0.5,) * 3,
        (1.0,) * 3,
    )
    write_onnx(tmp_path / "model.onnx", model, shipped, {})
    np.save(tmp_path / "image.npy", np.zeros((16, 16, 3), dtype=np.uint8))
    said = run("run_onnx.py", str(tmp_path / "model.onnx"), str(tmp_path / "image.npy"))
    assert said.strip() in classes
    code = (EXAMPLES / "run_onnx.py").read_text(encoding="utf-8")
    imported = set(re.findall(r"^import (\w+)", code, re.MULTILINE))
    assert imported == {"json", "sys", "numpy", "onnxruntime"}


def test_exported_detector_finds_digits_with_numpy_alone(tmp_path: Path) -> None:
    import seernet
    from seernet.config import DataConfig
    from seernet.data.digit_scenes import list_digit_scenes
    from seernet.export.onnx_file import write_onnx

    record = EXAMPLES.parent / "docs/results/digit-scenes"
    network = seernet.load(record / "networks/large/seed-0")
    shipped: Any = network.shipped
    write_onnx(tmp_path / "model.onnx", network, shipped, {})
    channels, side, _ = shipped.graph.input_shape
    config = DataConfig(name="digit-scenes", image_size=side, channels=channels)
    scenes = list_digit_scenes(config)
    number = int((scenes.splits == "test").argmax())
    np.save(tmp_path / "image.npy", np.asarray(scenes.read(number).image))
    lines = run("run_onnx.py", str(tmp_path / "model.onnx"), str(tmp_path / "image.npy"))
    found = [line.split() for line in lines.splitlines()]
    assert scenes.boxes is not None
    mine = scenes.boxes.images == number
    corners = torch.tensor([[float(edge) for edge in line[2:]] for line in found])
    overlaps = box_iou(corners, torch.from_numpy(scenes.boxes.corners[mine]).float())
    same = [[line[0] == str(label) for label in scenes.boxes.labels[mine]] for line in found]
    right = (overlaps > 0.5) & torch.tensor(same)
    assert right.any(dim=1).float().mean() >= 0.8  # of what it is confident of
    assert right.any(dim=0).float().mean() >= 0.5  # of what there is
