"""Benchmarks that others run on tables and records of their own."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from seernet.config import load
from seernet.policy import CostModel

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "predictor_table.py"


def policies(n: int, seed: int) -> pd.DataFrame:
    """A table whose accuracy is linear in its raw columns, with noise and repeated labels."""
    random = np.random.default_rng(seed)
    ratios, bits = random.integers(0, 7, (n, 6)) / 10, random.integers(2, 9, (n, 6))
    score = bits @ random.exponential(1.0, 6) / 8 - ratios @ random.exponential(1.0, 6)
    noisy = score / score.std() + random.normal(0.0, 0.5, n)
    columns = {f"bits_{i}": bits[:, i] for i in range(6)}
    columns |= {"accuracy": (70 + 5 * noisy).round(1)}
    return pd.DataFrame(columns | {f"pruning_ratio_{i}": ratios[:, i] for i in range(6)})


def run(table: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(table), "--repetitions", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_predictor_table_prints_one_object_and_does_not_lose_to_ridge(tmp_path: Path) -> None:
    policies(40, seed=0).to_csv(tmp_path / "table.csv", index=False)
    done = run(tmp_path / "table.csv", "--json", "--workers", "1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["seernet"]) == {"r2", "kendall_tau", "rmse", "coverage80"}
    assert set(found) > {"ridge", "random_forest", "gaussian_process", "mlp", "authors_mlp"}
    assert found["seernet"]["r2"] > found["ridge"]["r2"] - 0.05
    assert found["seernet"]["r2"] > 0.5
    assert found["seernet"]["rmse"] < 0.05


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop(columns="accuracy"), "accuracy"),
        (lambda t: t.assign(bits_0=t["bits_0"].astype(str) + "b"), "no number"),
        (lambda t: t.assign(accuracy=200.0), "neither in"),
        (lambda t: t.head(4), "too few"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, change: object, says: str
) -> None:
    change(policies(20, seed=1)).to_csv(tmp_path / "table.csv", index=False)  # type: ignore[operator]
    done = run(tmp_path / "table.csv")
    assert done.returncode != 0
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_kept_table_of_regret_is_of_todays_space_and_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    regret_table = importlib.import_module("_regret_table")
    table = regret_table.Table.read(regret_table.parameters())
    assert len(table.points) == len(regret_table.all_points(table.space)) == 432
    assert CostModel(table.space)(table.points).bops.round().tolist() == table.costs.tolist()
    assert table.sensitivity(table.points).isfinite().all()


def test_a_record_s_networks_stand_beside_its_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    record = ROOT / "docs" / "results" / "cifar10-resnet20"
    weights = load_file(record / "baseline.safetensors")
    cases = list(importlib.import_module("export_speed").recorded(record))
    assert [case[0].split(", ")[1] for case in cases] == ["tiny", "w2a2", "w3a3", "w4a4"]
    for _, baseline, network, shipped in cases:
        assert all(torch.equal(value, weights[key]) for key, value in baseline.state_dict().items())
        kept = round(16 * (1 - shipped.policy.pruning_ratio["conv"]))
        assert len(network.get_submodule("conv").weight) == kept


def test_a_record_keeps_the_stages_of_its_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(ROOT)
    record = importlib.import_module("record")
    params = load()
    assert yaml.safe_load(record.lock(params)) == yaml.safe_load(
        Path("dvc.lock").read_text("utf-8")
    )
    small = params.model_copy(update={"budgets": {"small": params.budgets["small"]}})
    stages = yaml.safe_load(record.lock(small))["stages"]
    assert {"sample", "finetune@small"} <= set(stages)
    assert "finetune@large" not in stages


def test_a_record_without_networks_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "export_speed.py")]
    command += ["--record", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "holds no networks" in done.stderr


def test_a_whole_run_on_paper_counts_what_the_stages_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: three budgets of `presets/imagenet-resnet50.yaml`, all rates one image a second."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    full_run = importlib.import_module("full_run")
    params = load(ROOT / "presets/imagenet-resnet50.yaml")
    images = full_run.Images(train=1000, search=100, test=50)
    found = full_run.stages(params, [], images, full_run.Rates(1, 1, 1, 1, 1))
    gpu = {stage: sum(phase.gpu for phase in phases) for stage, phases in found.items()}
    measurement = full_run.SETUP + 200 * 128 + 100
    network = full_run.SETUP + 20 * (2 * 1000 + 100) + 50  # taught by the baseline
    assert gpu == {
        "prepare": 0,
        "pretrain": 0,
        "sample: 0 single places": 0,
        "sample: 128 chosen policies": 128 * measurement,
        "sample: 128 random policies, for the rival": 128 * measurement,
        "baseline: at most 24 uniform candidates": 24 * measurement,
        "finetune: 3 networks": 3 * network,
        "baseline: 6 networks": 6 * network,
        "export: 3 networks": 0,
    }
    assert full_run.hours([full_run.Phase(3600, 4 * 3600), full_run.Phase(0, 3600)], 2) == 2.5


def test_recipe_names_a_record_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    recipe = importlib.import_module("recipe")
    monkeypatch.setattr(recipe.NetworkGraph, "load", lambda _: None)
    with pytest.raises(FileNotFoundError, match="no-such-record"):
        recipe.policies(load(), "no-such-record")
