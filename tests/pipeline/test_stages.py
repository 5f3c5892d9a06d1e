"""What the stage scripts themselves decide, without a network; the rest is tested in `src`."""

import importlib.util
import json
import sqlite3
import sys
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from seernet.config import SpaceConfig, load, validate
from seernet.errors import ArtifactError, ConfigError, ModelError, SeerNetError
from seernet.evaluation import Evaluation
from seernet.graph import Layer, NetworkGraph
from seernet.policy import Bound, LatencyTable, LayerTimes, Policy, SearchSpace
from seernet.sampling import Measured, rivals
from seernet.sampling.table import lessons
from seernet.store import Context, Store

ROOT = Path(__file__).resolve().parents[2]
GOOD = Evaluation(0.5, 10)
BAD_POLICY = Evaluation(None, 10, "TrainingError: the loss is not a number")
NO_MEMORY = Evaluation(None, 0, "RuntimeError: CUDA out of memory", final=False)
POLICY = Policy({}, {"fc": 8}, {"fc": 8})


class Reached(Exception):
    """Ends a stage where the test has seen enough."""


@pytest.fixture
def stage(monkeypatch, tmp_path):
    """Import a stage script; it runs in an empty folder, with the parameters of the tests."""
    monkeypatch.syspath_prepend(str(ROOT / "stages"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEERNET_STORE", raising=False)
    before, modules = torch.get_num_threads(), set(sys.modules)
    params = load(Path(__file__).with_name("tiny.yaml"))

    def script(name, *arguments):
        path = ROOT / "stages" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"stage_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        replace(module, load=lambda: params)
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        return module

    def replace(module, **names):
        for name, value in names.items():
            monkeypatch.setattr(module, name, value)

    yield SimpleNamespace(script=script, replace=replace, params=params)
    torch.set_num_threads(before)
    for name in {"_shared"} & (set(sys.modules) - modules):
        del sys.modules[name]


def measurer(*results):
    """A stand-in for `Measurer` whose measurements end so."""

    class Fixed:
        def __init__(self, *_):
            self.reused = 0

        def __call__(self, _):
            return list(results)

        def divergences(self, _):
            return []

    return Fixed


def without_network(stage, module):
    """Cut a script off from all that needs a network."""
    stage.replace(
        module,
        checked_space=lambda *_: None,
        NetworkGraph=SimpleNamespace(load=lambda _: None),
    )
    if hasattr(module, "Sensitivity"):
        stage.replace(module, Sensitivity=Nothing)
    if hasattr(module, "probes"):
        stage.replace(
            module,
            probes=lambda _: [],
            EvaluationSpec=SimpleNamespace(of=lambda *_: None),
            measuring=lambda *_: nullcontext(),
            Measurer=measurer(),
        )


class Nothing:
    """Stands in for a sensitivity that nothing reads."""

    def __init__(self, *_):
        pass

    @classmethod
    def load(cls, *_):
        return cls()


# --- failures of the machine ---


def sampling(stage, measure, *results):
    """A sampling stage whose only measurements end so."""
    module = stage.script("sample")
    without_network(stage, module)
    sampler = SimpleNamespace(run=lambda found, _: measure(found), random_policies=lambda: [])
    stage.replace(module, ActiveSampler=lambda *_: sampler, Measurer=measurer(*results))
    return module


@pytest.mark.parametrize("results", [(GOOD, NO_MEMORY), (NO_MEMORY, BAD_POLICY)])
def test_sampling_goes_on_without_a_policy_that_this_machine_cannot_measure(stage, results, caplog):
    def measure(found):
        lessons = {GOOD: 0.5, NO_MEMORY: None, BAD_POLICY: 0.0}
        assert found([POLICY, POLICY]) == [lessons[evaluation] for evaluation in results]
        raise Reached

    with pytest.raises(Reached):
        sampling(stage, measure, *results).main()
    assert "recorded as failed, because this machine cannot measure it (RuntimeError" in caplog.text


def test_sampling_without_any_memory_writes_no_result(stage):
    module = sampling(stage, lambda found: found([POLICY, POLICY]), NO_MEMORY, NO_MEMORY)
    with pytest.raises(SeerNetError, match=r"2 of 2 .*CUDA out of memory.*only these are made"):
        module.main()
    assert not Path("data/evaluations").exists()
    assert not Path("results").exists()


def test_the_predictor_learns_that_a_network_cannot_be_trained_but_nothing_of_the_machine():
    table = pd.DataFrame(
        {
            "score": [0.5, None, None],
            "soft_score": [0.4, None, None],
            "final": [True, True, False],
        }
    )
    found = lessons(table)
    assert found["score"].tolist() == [0.5, 0.0]
    assert found["soft_score"].tolist() == [0.4, 0.0]
    assert BAD_POLICY.lesson == (0.0, 0.0)
    assert NO_MEMORY.lesson == (None, None)


def test_an_initial_design_that_cannot_be_trained_names_the_cause(stage):
    results = (GOOD, NO_MEMORY, *[BAD_POLICY] * 4)
    module = sampling(stage, lambda found: found([POLICY] * 6), *results)
    with pytest.raises(
        SeerNetError, match=r"only 1 of 6 .*the loss is not a number.*learning_rate"
    ):
        module.main()


def test_a_failed_measurement_stands_in_the_table_with_policy_and_cause_and_without_score(
    stage, caplog
):
    layer = Layer("fc", "linear", 8, 8, 4, 2, {}, {}, False, True, True)
    graph = NetworkGraph((1, 2, 2), (layer,), (), (), (), {})
    space = SearchSpace(graph, SpaceConfig(edge_bits=None))
    good, bad = Policy({}, {"fc": 4}, {"fc": 2}), Policy({}, {"fc": 2}, {"fc": 2})
    measured = [Measured(0, "initial", good, 0.5), Measured(0, "initial", bad, None)]
    module = stage.script("sample")
    module.write(measured, {good.key(): GOOD, bad.key(): BAD_POLICY}, space, 0)
    table = pd.read_csv("data/evaluations/evaluations.csv")
    assert table["weight_bits/fc"].tolist() == [4, 2]
    assert table["score"].isna().tolist() == [False, True]
    assert table["error"].fillna("").tolist() == ["", BAD_POLICY.error]
    assert table["final"].tolist() == [True, True]
    assert "of 2 policies, 1 cannot be trained, and count as a score of 0" in caplog.text
    assert f"({BAD_POLICY.error})" in caplog.text
    assert json.loads(Path("results/metrics/sample.json").read_text())["failed"] == 1


def uniform_search(stage, *results):
    """Run the uniform search on as many candidates as there are results."""
    module = stage.script("baseline", "low")
    stage.replace(
        module,
        EvaluationSpec=SimpleNamespace(of=lambda *_: None),
        measuring=lambda *_: nullcontext(),
        Measurer=measurer(*results),
    )
    stage.replace(rivals, uniform_candidates=lambda *_: None)
    cost = SimpleNamespace(space=SimpleNamespace(decode=lambda _: [POLICY] * len(results)))
    return rivals.best_uniform(cost, (), lambda found: module.measured(stage.params, found))


def test_weights_that_two_layers_share_are_named_but_not_those_of_a_layer_used_twice(stage, caplog):
    pretrain = stage.script("pretrain")
    layer, other, third = (nn.Linear(4, 4) for _ in range(3))
    pretrain.name_what_is_tied(nn.Sequential(layer, nn.ReLU(), layer, other))
    assert not caplog.records
    third.weight = other.weight
    pretrain.name_what_is_tied(nn.Sequential(layer, other, third))
    (record,) = caplog.records
    assert record.getMessage().startswith("1.weight, 2.weight are one tensor")


def test_uniform_search_without_memory_chooses_nothing(stage):
    with pytest.raises(SeerNetError, match=r"2 of 3 .*CUDA out of memory"):
        uniform_search(stage, NO_MEMORY, GOOD, NO_MEMORY)


def test_a_policy_that_fails_is_a_result(stage):
    policy, details = uniform_search(stage, BAD_POLICY, GOOD)
    assert (policy, details["short_train_macs"]) == (POLICY, 20)


def test_sampling_computes_on_one_thread(stage):
    module = stage.script("sample")
    without_network(stage, module)
    threads = []

    def sampler(*_):
        threads.append(torch.get_num_threads())
        raise Reached

    stage.replace(module, ActiveSampler=sampler)
    torch.set_num_threads(2)
    with pytest.raises(Reached):
        module.main()
    assert threads == [1]


# --- missing files ---


def test_fit_without_measurements_names_the_stage_to_run(stage):
    module = stage.script("fit")
    without_network(stage, module)
    with pytest.raises(ArtifactError, match=r"evaluations\.csv is missing; run `dvc repro sample`"):
        module.main()


@pytest.mark.parametrize("last", ["", "schema: '2.", "stages:", "size"])
def test_a_lock_file_that_was_cut_off_is_named_with_a_remedy(stage, last):
    module = stage.script("ready")
    module.main()  # there need not be any
    whole = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    Path("dvc.lock").write_text(whole, encoding="utf-8")
    module.main()
    Path("dvc.lock").write_text(whole.partition(last)[0] + last if last else "", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"dvc\.lock is cut off.*git restore dvc\.lock"):
        module.main()


def test_a_lock_file_with_a_merge_conflict_is_named_with_a_remedy(stage):
    text = "schema: '2.0'\nstages:\n<<<<<<< HEAD\n  fit: {}\n=======\n  front: {}\n>>>>>>> other\n"
    Path("dvc.lock").write_text(text, encoding="utf-8")
    for name in ("ready", "prune"):
        with pytest.raises(ArtifactError, match=r"merge conflict.*git checkout --ours dvc\.lock"):
            stage.script(name).main()


def test_files_that_dvc_does_not_watch_are_named_with_the_stage_to_run(stage, capsys):
    module = stage.script("ready")
    data = {"name": "imagefolder", "path": "/mnt/images"}
    model = {"name": "mine.nets:build", "checkpoint": "data/weights.pt"}
    outside = {"data": data, "model": model, "latency": {"table": "phone.json"}}
    data = {"name": "imagefolder", "path": "data/raw/images"}
    model = {"name": "networks/mine.py:build", "checkpoint": str(Path("networks/w.pt").absolute())}
    inside = {"data": data, "model": model, "latency": {"table": "data/latency/phone.json"}}
    for sections, stages in (
        (outside, ["prepare", "pretrain", "pretrain", "latency"]),
        (inside, []),
    ):
        params = validate({**stage.params.model_dump(exclude_none=True), **sections})
        stage.replace(module, load=lambda params=params: params)
        module.main()
        warned = capsys.readouterr().err.splitlines()
        assert [line.partition("--force ")[2].split("`")[0] for line in warned] == stages


@pytest.mark.parametrize("link", ["images", "images/train", "images/train/cat"])
def test_a_linked_data_set_is_one_that_dvc_does_not_watch(stage, tmp_path, link):
    module = stage.script("ready")
    (tmp_path / "elsewhere/train/cat").mkdir(parents=True)
    raw = tmp_path / "data/raw"
    (raw / link).parent.mkdir(parents=True)
    (raw / link).symlink_to(tmp_path / "elsewhere")
    assert module.unseen(Path("data/raw/images"), Path("data/raw"))
    (raw / link).unlink()
    (raw / link / "train/cat").mkdir(parents=True)
    assert not module.unseen(Path("data/raw/images"), Path("data/raw"))


def test_a_misspelt_measure_is_no_file(stage):
    module = stage.script("ready")
    with pytest.raises(ConfigError, match="no such file; did you mean `measure`"):
        module.check_latency_table("mesure")
    Path("mesure").touch()
    for table in ("mesure", "measure", "none", "data/latency/phone.json"):
        module.check_latency_table(table)


def test_a_latency_table_that_is_not_there_is_refused_before_training(stage):
    module = stage.script("pretrain")
    latency = stage.params.latency.model_copy(update={"table": "mesure"})
    with pytest.raises(ArtifactError, match="cannot read the latency table mesure"):
        module.check_latency_table(stage.params.model_copy(update={"latency": latency}))
    module.check_latency_table(stage.params)


@pytest.mark.parametrize(("failed", "last"), [("export@low", "report"), ("finetune@low", None)])
def test_a_network_that_cannot_be_exported_does_not_hold_up_the_report(stage, failed, last):
    module, ran = stage.script("parallel", "1"), []
    stage.replace(
        module,
        serial=lambda *targets: ran.append(targets),
        run_chain=lambda chain: failed if failed in chain else None,
    )
    with pytest.raises(SeerNetError, match=failed):
        module.main()
    assert ran[1:] == ([(last,)] if last else [])


# --- budgets ---


def test_stages_of_budgets_never_share_a_progress_folder(stage):
    folders = []

    def finetuner(_, folder, *__):
        folders.append(folder.progress)
        raise Reached

    for name in ("finetune", "baseline"):
        for budget in ("low", "high"):
            module = stage.script(name, budget)
            stage.replace(module, Finetuner=finetuner)
            with pytest.raises(Reached):
                module.main()
    names = [folder.name.rpartition("-") for folder in folders]
    expected = ["finetune-low", "finetune-high", "baseline-low", "baseline-high"]
    assert [name for name, *_ in names] == expected
    assert {folder.parent for folder in folders} == {Path(".store/progress")}
    assert len({clone for *_, clone in names}) == 1


def test_clones_that_share_a_store_never_share_a_progress_folder(stage, monkeypatch, tmp_path):
    monkeypatch.setenv("SEERNET_STORE", str(tmp_path / "shared"))
    stage.script("finetune", "low")
    own_folders = sys.modules["_shared"].own_folders
    folders = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        folders.append(own_folders("finetune", "low").progress)
    assert folders[0] != folders[1]
    assert {folder.parent for folder in folders} == {tmp_path / "shared/progress"}


@pytest.mark.parametrize("cost", ["bops", "macs", "size_bytes"])
def test_network_beyond_any_limit_of_its_budget_is_refused(stage, cost):
    module = stage.script("finetune", "low")
    counted = {"cost_bops": 1000, "macs": 1000, "size_bytes": 1000}
    others = [Bound(name, 1000.0) for name in ("bops", "macs", "size_bytes") if name != cost]
    # Bytes of single weights may be fractions; those of a network are counted rounded up.
    module.check_limits("low", [*others, Bound(cost, 999.5)], counted)
    with pytest.raises(SeerNetError, match=r"`low` allows 999 .* needs 1000"):
        module.check_limits("low", [*others, Bound(cost, 999.0)], counted)


def with_table(stage, table):
    """The parameters, with another `latency.table`."""
    latency = stage.params.latency.model_copy(update={"table": table})
    return lambda: stage.params.model_copy(update={"latency": latency})


def test_no_latency_table_is_written_as_such(stage):
    stage.script("latency").main()
    assert LatencyTable.of_run(Path("models/latency.json")) is None


def test_a_latency_table_of_another_machine_is_checked_and_taken_over(stage):
    layer = Layer("fc", "linear", 8, 8, 4, 2, {}, {}, False, True, True)
    graph = NetworkGraph((1, 2, 2), (layer,), (), (), (), {})
    Path("models/baseline").mkdir(parents=True)
    graph.save(Path("models/baseline/graph.json"))
    table = LatencyTable(
        "a device", 1.0, 0.1, 1.0, 0.0, {"fc": LayerTimes((4,), (2,), 8, ((0.5,),), ((0.5,),), 0.1)}
    )
    table.save(Path("brought.json"))
    module = stage.script("latency")
    found = SimpleNamespace(latency_ms=torch.tensor([0.1, 0.2]))
    cost = type("Cost", (), {"space": SimpleNamespace(ends=None), "__call__": lambda *_: found})
    stage.replace(
        module,
        load=with_table(stage, "brought.json"),
        checked_space=lambda *_: None,
        CostModel=lambda *_: cost(),
    )
    module.main()
    assert LatencyTable.of_run(Path("models/latency.json")) == table
    stage.replace(module, load=with_table(stage, "nowhere.json"))
    with pytest.raises(ArtifactError, match=r"cannot read the latency table nowhere\.json"):
        module.main()


def test_sampling_warns_by_the_latency_table_but_minds_none_of_another_space(stage, caplog):
    """`latency` may run after `sample`, so a table of before may lie there."""
    layer = Layer("fc", "linear", 8, 8, 4, 2, {}, {}, False, True, True)
    graph = NetworkGraph((1, 2, 2), (layer,), (), (), (), {})
    space = SearchSpace(graph, SpaceConfig(edge_bits=None))
    times = LayerTimes((4,), (2,), 8, ((0.5,),), ((0.5,),), 0.1)
    table = LatencyTable("a device", 1.0, 0.1, 1.0, 0.0, {"fc": times})
    budget = type(stage.params.budgets["low"])(latency_ms=0.01)
    latency = stage.params.latency.model_copy(update={"table": "measure"})
    params = stage.params.model_copy(update={"latency": latency, "budgets": {"low": budget}})
    module = stage.script("sample")
    module.warn_of_hopeless_budgets(params, space)  # no table yet
    table.save(Path("models/latency.json"))
    module.warn_of_hopeless_budgets(params, space)
    assert "budget `low`: 0.01 ms" in caplog.text
    caplog.clear()
    module.warn_of_hopeless_budgets(stage.params, space)  # not asked for any more
    replace(table, layers={"other": times}).save(Path("models/latency.json"))
    module.warn_of_hopeless_budgets(params, space)
    assert not caplog.records


@pytest.mark.parametrize(("name", "refused"), [("SSD", False), ("FasterRCNN", True)])
def test_a_detector_that_cannot_be_exported_is_refused_before_it_is_trained(stage, name, refused):
    module = stage.script("pretrain")
    model = SimpleNamespace(decodable=not refused)
    with pytest.raises(ModelError, match=r"export\.onnx: false") if refused else nullcontext():
        module.check_exportable(stage.params, model)
    without = stage.params.export.model_copy(update={"onnx": False})
    module.check_exportable(stage.params.model_copy(update={"export": without}), model)
    module.check_exportable(stage.params, nn.Linear(1, 1))


@pytest.mark.parametrize("cheapest", [1001.0, 7919.0, 123457.0, 999983.0])
@pytest.mark.parametrize("baseline", [1.1e7, 1234577.0, 9876541.0])
def test_front_asks_for_no_cost_below_the_cheapest_policy(stage, cheapest, baseline):
    module = stage.script("front")
    without_network(stage, module)
    space = SimpleNamespace(ends=None, levels=[])
    model = Costs(cheapest, 0.9 * baseline, baseline)
    asked = []

    def optimize_many(_, __, limits, *___, known):
        assert known == "models/predictor/policies.json"
        asked.extend(limits.tolist())
        raise Reached

    stage.params.sample.__dict__["cost_range"] = [1e-9, 1.0]
    stage.replace(
        module,
        checked_space=lambda *_: space,
        CostModel=lambda _: model,
        FeatureMap=lambda *_: None,
        load_predictor=lambda _: None,
        load_policies=lambda path, *_: path.as_posix(),
        optimize_many=optimize_many,
    )
    with pytest.raises(Reached):
        module.main()
    assert len(asked) == stage.params.report.front_points
    assert min(asked) >= cheapest
    assert asked[0] == pytest.approx(cheapest)
    assert asked[-1] == pytest.approx(0.9 * baseline)
    assert asked == sorted(asked)


class Costs:
    """A cost model of one coordinate."""

    def __init__(self, cheapest, dearest, baseline):
        self.ends, self.whole = torch.tensor([cheapest, dearest], dtype=torch.float64), baseline

    def __call__(self, _):
        return SimpleNamespace(bops=self.ends)

    def baseline(self):
        return SimpleNamespace(bops=torch.tensor([self.whole], dtype=torch.float64))


# --- parameters ---


@pytest.mark.parametrize("largest", ["pretrain", "finetune", "evaluation"])
def test_prepare_checks_for_the_largest_batch(stage, largest):
    module = stage.script("prepare")
    sections = {
        "pretrain": stage.params.pretrain,
        "finetune": stage.params.finetune,
        "evaluation": stage.params.sample.evaluation,
    }
    sections[largest].__dict__["batch_size"] = 77
    seen = []
    stage.replace(module, prepare=lambda *arguments: seen.append(arguments[-1]))
    module.main()
    assert seen == [77]


def parameters(name):
    """Parameters that a stage of `dvc.yaml` depends on."""
    document = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    stage = document["stages"][name]
    return stage.get("do", stage)["params"]


def test_stages_depend_on_the_parameters_they_read():
    batches = {f"{part}.batch_size" for part in ("pretrain", "finetune", "sample.evaluation")}
    assert batches <= set(parameters("prepare"))
    assert "budgets.${key}" in parameters("finetune")
    assert [key for key in parameters("front") if key.startswith("report")] == [
        "report.front_points"
    ]


PARAMETER_FILES = [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))]
PARAMETER_FILES += [Path(__file__).with_name("tiny.yaml")]


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.stem)
def test_single_keys_stand_in_every_parameters_file(path):
    """DVC refuses to run a stage whose parameter is missing, whatever its default here."""
    document = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    for name in stages["stages"]:
        for key in parameters(name):
            value = document
            for part in key.replace(".${key}", "").split("."):
                assert part in value, f"{name} needs {key}"
                value = value[part]


def test_top_level_plots_use_templates_that_dvc_knows():
    templates = pytest.importorskip("dvc_render.vega_templates").TEMPLATES
    document = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    plots = {name: plot for entry in document["plots"] for name, plot in entry.items()}
    assert {plot["template"] for plot in plots.values()} <= {t.DEFAULT_NAME for t in templates}
    # Rows of several budgets and methods in no order along the axis: a line would join them.
    assert plots["trade-off"]["template"] == "scatter"
    assert plots["trade-off"]["x_label"]
    assert plots["trade-off"]["y_label"]


# --- the store of measurements ---

NOW = Context("a" * 64, {"model": "resnet20", "seed": 3, "evaluation": {"steps": 8}})
BEFORE = Context("b" * 64, {"model": "vgg_small"})


@pytest.fixture
def measured(stage, tmp_path, monkeypatch):
    """A store with records of this run, of another one, and of nobody knows which."""
    store = Store(tmp_path / ".store" / "evaluations.sqlite")
    score = {"score": 0.5, "train_macs": 10, "error": "", "final": True, "soft_score": 0.25}
    store.put("a1", score, NOW)
    store.put("a2", {"value": 0.1, "macs": 10}, NOW)
    store.put("b1", score, BEFORE)
    store.put("b2", score | {"score": None, "soft_score": None, "error": "diverged"}, BEFORE)
    store.put("c1", score)
    monkeypatch.setattr("seernet.config.load", lambda: stage.params)
    monkeypatch.setattr("seernet.evaluation.context_of", lambda _: NOW)
    return store


def test_store_is_listed_by_context(stage, measured, capsys):
    stage.script("store").main()
    _, head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:6] == ["context", "data", "model", "seed", "device", "steps"]
    found = {line.split()[0]: line.split() for line in lines}
    assert set(found) == {"a" * 12, "b" * 12, "unknown"}
    assert found["a" * 12][1:8] == ["resnet20", "3", "8", "1", "0", "1", "0"]
    assert found["b" * 12][1:6] == ["vgg_small", "1", "1", "0", "0"]


@pytest.mark.parametrize(
    "record",
    [
        *({"score": 1.5}, {"score": -0.1}, {"score": float("nan")}, {"score": "0.5"}, {"macs": 1}),
        *({"score": None, "error": ""}, {"value": float("inf")}, {"score": 0.5, "soft_score": 2}),
        [0.5],
    ],
)
def test_verification_names_a_record_that_is_none(stage, measured, caplog, record):
    module = stage.script("store", "verify")
    module.main()
    measured.put("odd", record)
    with pytest.raises(ArtifactError, match=r"1 findings in .* of 6 records"):
        module.main()
    assert f"odd: {json.dumps(record)}" in caplog.text


def test_verification_names_text_that_is_no_record(stage, measured, caplog):
    with closing(sqlite3.connect(measured.path)) as connection, connection:
        connection.execute("UPDATE records SET record = '{\"score\": 0.' WHERE key = 'a1'")
    with pytest.raises(ArtifactError, match="1 findings"):
        stage.script("store", "verify").main()
    assert 'a1: {"score": 0.' in caplog.text


def test_pruning_removes_only_if_told_and_never_what_may_be_of_use(stage, measured, caplog):
    caplog.set_level("INFO")
    stage.script("store", "prune").main()
    assert (
        "can reuse 2 records; 1 are of unknown origin, and stay; it cannot reuse 2" in caplog.text
    )
    assert len(measured.rows()) == 5
    stage.script("store", "prune", "--remove").main()
    assert "2 records removed" in caplog.text
    assert [row.key for row in measured.rows()] == ["a1", "a2", "c1"]


def test_store_script_refuses_what_it_does_not_know(stage, measured, monkeypatch):
    with pytest.raises(ConfigError, match=r"usage: .* got \['remove'\]"):
        stage.script("store", "remove").main()
    monkeypatch.setenv("SEERNET_STORE", "nowhere")
    with pytest.raises(ArtifactError, match="there is no nowhere"):
        stage.script("store").main()
    assert not Path("nowhere").exists()
