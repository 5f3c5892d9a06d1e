"""Finetuning: counted costs, resumable, restorable, and one look at the test split."""

import json
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from seernet.compression import build_compressed
from seernet.data import Dataset
from seernet.errors import SeerNetError
from seernet.evaluation import Finetuner, Job, finetune_policy
from seernet.policy import Policy


@pytest.fixture
def make(project, params, tmp_path):
    """Build a finetuner with a progress folder of this test's own."""

    def build(**finetune):
        section = params.finetune.model_copy(update=finetune)
        changed = params.model_copy(update={"finetune": section})
        return Finetuner(changed, replace(project.folders, progress=tmp_path / "progress"))

    return build


@pytest.fixture
def policy(policies):
    return policies[2]


def test_record_holds_costs_of_the_network_and_one_run_a_seed(make, project, policy):
    finetuner = make(epochs=1, seeds=[0, 3])
    record = finetuner.run(policy, project.cost, "small")
    cost = project.cost(project.space.encode([policy]))
    for name, value in (("cost_bops", cost.bops), ("macs", cost.macs)):
        assert record[name] == round(value.item())
    assert record["size_bytes"] == pytest.approx(cost.size_bytes.item(), abs=1)
    images = finetuner.dataset.info.counts["train"] // 256 * 256
    assert record["train_macs"] == 2 * 3 * record["macs"] * images
    assert [run["seed"] for run in record["runs"]] == [0, 3]
    assert all(0.0 < run["test_score"] <= 1.0 for run in record["runs"])
    assert record["runs"][0] != record["runs"][1] | {"seed": 0}


def test_interrupted_finetuning_equals_an_uninterrupted_one(
    make, project, policy, tmp_path, monkeypatch
):
    rows = []
    expected = make(seeds=[0, 1]).run(
        policy, project.cost, "small", tmp_path / "whole", lambda *row: rows.append(row)
    )
    for path in (tmp_path / "progress").iterdir():
        path.unlink()

    def stop(seed, row):
        if (seed, row["epoch"]) == (1, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(seeds=[0, 1]).run(policy, project.cost, "small", None, stop)
    assert len(list((tmp_path / "progress").iterdir())) == 2
    finetuner, seen = make(seeds=[0, 1]), []
    found = finetuner.run(
        policy, project.cost, "small", tmp_path / "resumed", lambda *row: seen.append(row)
    )
    assert found == expected
    assert seen == rows
    for name in ("seed-0.safetensors", "seed-1.safetensors"):
        whole, resumed = (tmp_path / folder / name for folder in ("whole", "resumed"))
        assert whole.read_bytes() == resumed.read_bytes()
    finetuner.finish()
    assert not (tmp_path / "progress").exists()


def test_job_that_another_process_gets_finetunes_alike(make, project, policy, tmp_path):
    finetuner = make(epochs=1)
    folders = replace(project.folders, progress=tmp_path / "beside")
    job = Job(finetuner.params, folders, policy, "beside", 1)
    record = finetune_policy(pickle.loads(pickle.dumps(job)))  # noqa: S301 - as an executor does
    assert record == finetuner.run(policy, project.cost, "small")


def test_written_network_can_be_restored(make, project, policy, tmp_path):
    finetuner = make(epochs=1)
    record = finetuner.run(policy, project.cost, "small", tmp_path)
    path = tmp_path / "seed-0.safetensors"
    with safe_open(path, framework="pt") as file:
        stored = Policy.from_dict(json.loads(file.metadata()["policy"]))
    tensors = load_file(path)
    keep = {k.removeprefix("keep/"): v for k, v in tensors.items() if k.startswith("keep/")}
    state = {k.removeprefix("network/"): v for k, v in tensors.items() if "network/" in k}
    network = build_compressed(finetuner.baseline, stored, project.graph, keep).eval()
    network.load_state_dict(state)
    assert stored == policy
    assert sum(not mask.all() for mask in keep.values()) == len(policy.pruning_ratio)
    assert finetuner.test_score(network) == record["runs"][0]["test_score"]


def test_test_split_is_read_once_for_each_network(make, project, policy, monkeypatch):
    splits = []
    loader = Dataset.loader

    def watched(self, split, *args, **kwargs):
        splits.append(split)
        return loader(self, split, *args, **kwargs)

    monkeypatch.setattr(Dataset, "loader", watched)
    make(epochs=2, seeds=[0, 1]).run(policy, project.cost, "small")
    assert splits.count("test") == 2
    assert splits.count("search") >= 4


def test_seed_of_a_training_does_not_depend_on_our_code(make, project, policy, monkeypatch):
    from seernet.evaluation import finetuning

    expected = make(epochs=1).run(policy, project.cost, "small")
    monkeypatch.setattr(finetuning, "code_digest", lambda parts: "after a refactoring")
    assert make(epochs=1).run(policy, project.cost, "small") == expected


def test_cost_model_that_disagrees_is_our_defect(make, project, policy, monkeypatch):
    class Wrong:
        space = project.space

        def __call__(self, points):
            costs = project.cost(points)
            costs.bops = costs.bops + 1  # it is computed once, and kept
            return costs

    with pytest.raises(SeerNetError, match="this is a defect of ours"):
        make().run(policy, Wrong(), "small")


def test_baseline_is_left_alone(make, project, policy):
    finetuner = make(epochs=1)
    before = {key: value.clone() for key, value in finetuner.baseline.state_dict().items()}
    finetuner.run(policy, project.cost, "small")
    for key, value in finetuner.baseline.state_dict().items():
        assert torch.equal(value, before[key]), key
