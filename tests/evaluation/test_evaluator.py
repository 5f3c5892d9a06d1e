"""A measurement depends on its policy alone, and a failure is a result."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from seernet import store
from seernet.compression import compress, count
from seernet.errors import DataError
from seernet.evaluation import Evaluator, evaluate_policy, evaluator, records
from seernet.parallel import LocalExecutor, completed
from seernet.policy import Policy


@pytest.fixture(scope="module")
def opened(spec):
    return Evaluator(spec)


@pytest.fixture(scope="module")
def measured(opened, policies):
    return [opened.evaluate(policy) for policy in policies]


def with_config(spec, **changes):
    return replace(spec, config=spec.config.model_copy(update=changes))


def test_scores_are_accuracies_of_a_network_that_has_learned(measured, project):
    assert all(0.0 < evaluation.score <= 1.0 for evaluation in measured)
    assert measured[0].score > 0.3  # 8 bits, not pruned; chance is 0.1
    assert measured[0].error == ""


def test_score_depends_neither_on_order_nor_on_history(opened, measured, policies):
    torch.rand(3)
    torch.set_num_threads(2)  # someone else's business
    again = [opened.evaluate(policy) for policy in reversed(policies)]
    assert again[::-1] == measured
    assert torch.get_num_threads() == opened.spec.config.threads


def test_measuring_leaves_the_baseline_and_the_generator_alone(opened, policies):
    before = {key: value.clone() for key, value in opened.model.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    opened.evaluate(policies[0])
    assert torch.equal(torch.rand(1), expected)
    for key, value in opened.model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.pipeline
@pytest.mark.parametrize("workers", [1, 2])
def test_score_does_not_depend_on_the_process(spec, measured, policies, workers):
    jobs = [(spec, policy.to_dict()) for policy in policies]
    with LocalExecutor(workers) as executor:
        found = dict(completed(executor, evaluate_policy, jobs))
    assert [found[index] for index in range(len(policies))] == measured


def test_seed_derives_from_the_policy(opened, policies, monkeypatch):
    seeds = []
    monkeypatch.setattr(Evaluator, "_train", lambda self, network, seed: seeds.append(seed))
    for policy in (policies[0], policies[1], policies[0]):
        opened.evaluate(policy)
    assert seeds[0] == seeds[2] != seeds[1]


def test_compute_is_counted_by_hand(opened, measured, project):
    """3 steps of 32 images forward and back, 3 x 64 to calibrate, the search split to score."""
    macs = project.cost(torch.ones(1, project.space.dimension, dtype=torch.float64)).macs.item()
    search = opened.dataset.info.counts["search"]
    assert measured[0].train_macs == macs * (3 * 3 * 32 + 3 * 64 + search)


def test_diverging_training_is_a_failure_with_its_cause(spec, policies):
    found = Evaluator(with_config(spec, learning_rate=1e30, steps=5)).evaluate(policies[0])
    assert found.score is None
    assert found.error.startswith("TrainingError: the ")
    assert "\n" not in found.error
    assert found.final
    assert found.train_macs > 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_failure_of_the_machine_is_not_final(opened, policies, monkeypatch, error):
    def fail(self, network, seed):
        raise error

    monkeypatch.setattr(Evaluator, "_train", fail)
    found = opened.evaluate(policies[0])
    assert (found.score, found.final) == (None, False)
    assert found.error.startswith(type(error).__name__)


def test_other_failure_of_the_network_is_final(opened, policies, monkeypatch):
    def fail(self, network, seed):
        raise RuntimeError("shapes\n  do not match")

    monkeypatch.setattr(Evaluator, "_train", fail)
    found = opened.evaluate(policies[0])
    assert (found.error, found.final) == ("RuntimeError: shapes do not match", True)


def test_missing_images_are_nobodys_score(opened, policies, monkeypatch):
    def fail(self, network, seed):
        raise DataError("an image vanished; run prepare.")

    monkeypatch.setattr(Evaluator, "_train", fail)
    with pytest.raises(DataError, match="an image vanished"):
        opened.evaluate(policies[0])


def test_worker_keeps_its_evaluator_between_policies(spec, policies, monkeypatch):
    opened = []

    class Counting:
        def __init__(self, spec):
            opened.append(spec)

        def evaluate(self, policy):
            return policy

    monkeypatch.setattr(evaluator, "Evaluator", Counting)
    evaluator._evaluator.cache_clear()
    for policy in policies[:3]:
        assert evaluate_policy((spec, policy.to_dict())) == policy
    evaluator._evaluator.cache_clear()
    assert opened == [spec]


def test_key_sees_all_that_decides_a_score(spec, project, tmp_path):
    changed = [
        replace(spec, seed=1),
        replace(spec, device="cuda"),
        replace(spec, data=spec.data.model_copy(update={"crop_padding": 2})),
        replace(spec, model=spec.model.model_copy(update={"arguments": {"width": 8}})),
        with_config(spec, steps=4),
        with_config(spec, threads=2),
        with_config(spec, precision="bfloat16"),
    ]
    keys = {one.digest() for one in [spec, *changed]}
    assert len(keys) == 1 + len(changed)
    other = tmp_path / "baseline"
    other.mkdir()
    for file in project.folders.baseline.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    assert replace(spec, baseline=other).digest() == spec.digest()
    (other / "graph.json").write_text("{}")
    assert replace(spec, baseline=other).digest() not in keys
    prepared = shutil.copytree(project.folders.prepared, tmp_path / "prepared")
    document = json.loads((prepared / "dataset.json").read_text("utf-8"))
    (prepared / "dataset.json").write_text(json.dumps(document | {"std": [2.0]}), "utf-8")
    assert replace(spec, prepared=prepared).digest() not in keys


def test_key_ignores_what_decides_no_score(spec):
    data = spec.data.model_copy(update={"workers": 9, "path": "elsewhere"})
    model = spec.model.model_copy(update={"checkpoint": "renamed.pt"})
    assert replace(spec, data=data, model=model).digest() == spec.digest()


def test_key_sees_the_code_of_measurements_only(spec, tmp_path, monkeypatch):
    package = tmp_path / "seernet"
    for file in store.PACKAGE.rglob("*.py"):
        copy = package / file.relative_to(store.PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    monkeypatch.setattr(records, "code_digest", store.code_digest)
    before = spec.digest()
    monkeypatch.setattr(store, "PACKAGE", package)
    for name in ("evaluation/finetuning.py", "sampling/active.py", "report/page.py"):
        with (package / name).open("a") as file:
            file.write("\nx = 1\n")
    with (package / "training/loop.py").open("a") as file:
        file.write("# a comment\n")
    assert spec.digest() == before
    with (package / "training/loop.py").open("a") as file:
        file.write("x = 1\n")
    assert spec.digest() != before


def test_divergence_grows_as_bits_are_taken_away(opened, policies, project):
    names = [layer.name for layer in project.graph.layers]
    found = []
    for bits in (32, 8, 2):
        policy = Policy({}, dict.fromkeys(names, bits), dict.fromkeys(names, bits))
        found.append(opened.divergence(policy))
    values = [divergence.value for divergence in found]
    assert values[0] == 0.0  # nothing is compressed, however few the images
    assert 0.0 < values[1] < 0.01 * values[2]
    assert found[0].macs == 3 * 64 * int(project.cost.baseline().macs)
    group = project.graph.groups[0].name
    narrow = replace(policy, pruning_ratio={group: 0.5})
    macs = count(compress(opened.model, narrow, opened.graph), opened.graph.input_shape).macs
    assert opened.divergence(narrow).macs == 4 * 64 * macs
    assert opened.divergence(policy) == found[-1]
