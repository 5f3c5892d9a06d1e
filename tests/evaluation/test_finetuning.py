"""Finetuning: counted costs, resumable, restorable, and one look at the test split."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from seernet.compression import as_packed, build_compressed
from seernet.data import Dataset
from seernet.errors import SeerNetError
from seernet.evaluation import Finetuner, Job, finetune
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


def test_costs_are_those_of_the_network(make, project, policy):
    finetuner = make(seeds=[0, 3])
    record = finetuner.costs(policy, project.cost)
    cost = project.cost(project.space.encode([policy]))
    for name, value in (("cost_bops", cost.bops), ("macs", cost.macs)):
        assert record[name] == round(value.item())
    assert record["size_bytes"] == pytest.approx(cost.size_bytes.item(), abs=1)
    images = finetuner.dataset.info.counts["train"] // 256 * 256
    teacher = int(project.cost.baseline().macs)  # a step is three passes, and one of its own
    assert record["train_macs"] == 2 * 2 * (3 * record["macs"] + teacher) * images  # seeds, epochs


def test_seeds_count_and_epochs_are_told(make, policy):
    finetuner = make()
    runs = [finetuner.run(Job(policy, seed, "small")) for seed in (0, 3)]
    assert [run.seed for run in runs] == [0, 3]
    assert all(0.0 < run.test["score"] <= run.test["top5"] <= 1.0 for run in runs)
    assert [row["epoch"] for row in runs[0].history] == [1, 2]
    assert runs[0].search_score == max(row["score"] for row in runs[0].history)
    assert runs[0].history != runs[1].history
    told = runs[0].to_dict()
    assert told["test_top5"] == runs[0].test["top5"]
    assert "history" not in told


def test_interrupted_finetuning_equals_an_uninterrupted_one(make, policy, tmp_path, monkeypatch):
    job = Job(policy, 1, "small", tmp_path / "whole")
    expected = make().run(job)
    for path in (tmp_path / "progress").iterdir():
        path.unlink()

    def stop(plan, row):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["seernet.training.fit"], "_notify", stop)
        with pytest.raises(KeyboardInterrupt):
            make().run(job)
    assert len(list((tmp_path / "progress").iterdir())) == 1
    finetuner = make()
    assert finetuner.run(replace(job, output=tmp_path / "resumed")) == expected
    whole, resumed = (tmp_path / name / "seed-1.safetensors" for name in ("whole", "resumed"))
    assert whole.read_bytes() == resumed.read_bytes()
    finetuner.finish()
    assert not (tmp_path / "progress").exists()


@pytest.mark.pipeline
def test_policies_and_seeds_side_by_side_end_as_one_by_one(make, params, policies, tmp_path):
    jobs = [Job(policy, seed, "beside") for policy in policies[2:] for seed in (0, 1)]
    finetuner = make(epochs=1)
    expected = [finetuner.run(job) for job in jobs]
    finetuner.finish()
    assert finetune(finetuner, jobs) == expected
    assert len(list((tmp_path / "progress").iterdir())) == len(jobs)


def test_written_network_can_be_restored(make, project, policy, tmp_path):
    finetuner = make(epochs=1)
    expected = finetuner.run(Job(policy, 0, "small", tmp_path))
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
    assert finetuner.test(as_packed(network, project.graph.input_shape)) == expected.test


def test_test_split_is_read_once_for_each_network(make, policy, monkeypatch):
    splits = []
    loader = Dataset.loader

    def watched(self, split, *args, **kwargs):
        splits.append(split)
        return loader(self, split, *args, **kwargs)

    monkeypatch.setattr(Dataset, "loader", watched)
    make().run(Job(policy, 0, "small"))
    assert splits.count("test") == 1
    assert splits.count("search") >= 2


def test_seed_of_a_training_does_not_depend_on_our_code(make, policy, monkeypatch):
    from seernet.evaluation import finetuning

    job = Job(policy, 0, "small")
    expected = make(epochs=1).run(job)
    monkeypatch.setattr(finetuning, "code_digest", lambda parts: "after a refactoring")
    assert make(epochs=1).run(job) == expected


def test_cost_model_that_disagrees_is_our_defect(make, project, policy, monkeypatch):
    class Wrong:
        space = project.space

        def __call__(self, points):
            costs = project.cost(points)
            costs.bops = costs.bops + 1  # it is computed once, and kept
            return costs

    with pytest.raises(SeerNetError, match="this is a defect of ours"):
        make().costs(policy, Wrong())


def test_baseline_is_left_alone(make, policy):
    finetuner = make(epochs=1)
    before = {key: value.clone() for key, value in finetuner.baseline.state_dict().items()}
    finetuner.run(Job(policy, 0, "small"))
    for key, value in finetuner.baseline.state_dict().items():
        assert torch.equal(value, before[key]), key
