"""Detection goes through every stage by its parameters alone."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def detected(new_workspace, tmp_path_factory):
    workspace = new_workspace(tmp_path_factory.mktemp("detection"), "detection.yaml")
    workspace.first_run = workspace.repro()
    return workspace


def test_scenes_reach_the_report(detected):
    assert detected.first_run[-1] == "report"
    metrics = json.loads((detected.folder / "results/metrics/finetune/tight.json").read_text())
    assert metrics["metric"] == "map"
    (run,) = metrics["runs"]
    assert 0.0 <= run["test_score"] <= run["test_map_50"] <= 1.0
    assert {key for key in run if key.startswith("test_map/")} == {
        f"test_map/{digit}" for digit in range(10)
    }
    exported = json.loads((detected.folder / "results/metrics/export/tight.json").read_text())
    assert exported["test_score"] == run["test_score"]  # of the packed file, read again
    assert (detected.folder / "results/report/index.html").stat().st_size > 10_000


def test_networks_keep_every_limit(detected):
    table = pd.read_csv(detected.folder / "results/tradeoff.csv")
    assert set(table["method"]) >= {"seernet", "uniform"}
    assert (table["bops_ratio"] <= 0.02).all()
    assert (table["size_bytes"] <= 20_000).all()


def test_nothing_runs_twice(detected):
    assert detected.repro() == []


def test_its_record_has_pictures_and_scores_again_as_recorded(detected):
    for script in BENCHMARKS.glob("*.py"):
        (detected.folder / "benchmarks").mkdir(exist_ok=True)
        shutil.copy2(script, detected.folder / "benchmarks")
    detected.script("benchmarks/record.py", "scenes")
    record = detected.folder / "docs/results/scenes"
    assert (record / "figures/detections.png").stat().st_size > 10_000
    assert [p.parent.name for p in (record / "networks").glob("*/seed-0")] == ["tight"]
    detected.script("benchmarks/verify_results.py", "scenes")
