"""`pretrain` and `finetune` by several processes, through DVC and through torchrun."""

import csv
import json
import subprocess
import sys

import pytest

from seernet.graph import NetworkGraph
from seernet.policy import Policy

pytestmark = pytest.mark.pipeline
TWO = "--nproc-per-node 2"


def rows(folder):
    with (folder / "results/timings.csv").open() as file:
        return [(row["stage"], row["status"]) for row in csv.DictReader(file)]


def test_stages_run_in_two_processes_of_which_one_writes(fresh, monkeypatch):
    fresh.edit("epochs: 3", "epochs: 2")
    monkeypatch.setenv("SEERNET_TORCHRUN", TWO)
    output = fresh.dvc("repro", "pretrain")
    assert output.count("2 processes train together") == 1
    assert rows(fresh.folder) == [("prepare", "0"), ("pretrain", "0")]
    curve = fresh.folder / "results/training/pretrain/plots/metrics/loss.tsv"
    assert len(curve.read_text().splitlines()) == 1 + 2
    assert not list((fresh.folder / ".store/progress").iterdir())
    assert "up to date" in fresh.dvc("status", "pretrain")

    graph = NetworkGraph.load(fresh.folder / "models/baseline/graph.json")
    bits = {layer.name: 8 if layer.edge else 2 for layer in graph.layers}
    policy = Policy({group.name: 0.5 for group in graph.groups}, bits, bits)
    for path, content in {
        "models/policies/high.json": policy.to_dict(),
        "results/metrics/optimize/high.json": {"predicted_score": 0.5},
    }.items():
        (fresh.folder / path).parent.mkdir(parents=True)
        (fresh.folder / path).write_text(json.dumps(content))
    monkeypatch.delenv("SEERNET_TORCHRUN")
    torchrun = [sys.executable, "-m", "torch.distributed.run", *TWO.split()]
    command = [*torchrun, "stages/finetune.py", "high"]
    subprocess.run(command, cwd=fresh.folder, env=fresh.environment, check=True)
    assert rows(fresh.folder)[2:] == [("finetune", "0")]
    (run,) = json.loads((fresh.folder / "results/metrics/finetune/high.json").read_text())["runs"]
    assert 0.1 < run["test_score"] <= 1.0
    assert (fresh.folder / "models/finetuned/high/seed-0.safetensors").stat().st_size > 0
    assert not list((fresh.folder / ".store/progress").iterdir())
