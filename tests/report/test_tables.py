"""The trade-off table holds exactly what was asked for, in an order of its own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from seernet.errors import ArtifactError
from seernet.graph import Layer, NetworkGraph
from seernet.report import Artifacts, collect
from seernet.report.tables import compute_table, layer_table, shown_cost, summarize

Write = Callable[..., Path]
BUDGETS = ("tiny", "small", "medium")


def test_collect_holds_one_row_for_each_budget_method_and_seed(synthetic: Write) -> None:
    table = collect(BUDGETS, synthetic(seeds=(1, 0)) / "results/metrics")
    expected = [
        (b, m, s) for b in BUDGETS for m in ("seernet", "uniform", "random") for s in (0, 1)
    ]
    assert list(table[["budget", "method", "seed"]].itertuples(index=False, name=None)) == expected
    assert list(table.columns) == [
        "budget",
        "method",
        "seed",
        "cost_bops",
        "bops_ratio",
        "macs",
        "parameters",
        "size_bytes",
        "predicted_score",
        "search_score",
        "test_score",
        "baseline_score",
    ]


def test_latency_is_a_last_column_where_a_table_was_used(synthetic: Write) -> None:
    metrics = synthetic() / "results/metrics"
    path = metrics / "finetune/small.json"
    document = {**json.loads(path.read_text()), "latency_ms": 1.25}
    path.write_text(json.dumps(document))
    table = collect(BUDGETS, metrics)
    assert table.columns[-1] == "latency_ms"
    known = table[(table["budget"] == "small") & (table["method"] == "seernet")]
    assert set(known["latency_ms"]) == {1.25}
    assert table["latency_ms"].isna().sum() == len(table) - len(known)


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ([{"bops": 1.0}, {"bops": 1.0, "latency_ms": 2.0}], "cost_bops"),
        ([{"size_bytes": 1.0}, {"bops": 1.0, "size_bytes": 2.0}], "size_bytes"),
        ([{"latency_ms": 1.0}], "latency_ms"),
        ([{"latency_ms": 1.0}, {"macs": 1.0}], "cost_bops"),
    ],
)
def test_a_cost_that_all_budgets_limit_is_shown_or_else_bops(
    limits: list[dict[str, float]], shown: str
) -> None:
    assert shown_cost(limits) == shown


def test_collect_copies_the_values_of_each_run(synthetic: Write) -> None:
    metrics = synthetic(seeds=(0, 1)) / "results/metrics"
    uniform = json.loads((metrics / "baseline/small.json").read_text())["uniform"]
    table = collect(BUDGETS, metrics).set_index(["budget", "method", "seed"])
    row = table.loc[("small", "uniform", 1)]
    assert row["test_score"] == uniform["runs"][1]["test_score"]
    assert row["size_bytes"] == uniform["size_bytes"]
    assert pd.isna(row["predicted_score"])
    assert row["baseline_score"] == 0.957


def test_order_of_budgets_does_not_matter(synthetic: Write) -> None:
    metrics = synthetic() / "results/metrics"
    shuffled = collect(("medium", "tiny", "small"), metrics)
    assert shuffled.to_csv() == collect(BUDGETS, metrics).to_csv()


def test_removed_budget_is_gone_although_its_files_remain(synthetic: Write) -> None:
    table = collect(("tiny", "medium"), synthetic() / "results/metrics")
    assert set(table["budget"]) == {"tiny", "medium"}


def test_method_without_a_policy_has_no_rows(synthetic: Write) -> None:
    table = collect(BUDGETS, synthetic(with_random=False) / "results/metrics")
    assert set(table["method"]) == {"seernet", "uniform"}


@pytest.mark.parametrize("stage", ["finetune", "baseline"])
def test_missing_metrics_name_the_stage_to_run(synthetic: Write, stage: str) -> None:
    metrics = synthetic() / "results/metrics"
    (metrics / stage / "small.json").unlink()
    with pytest.raises(ArtifactError, match=f"dvc repro {stage}@small"):
        collect(BUDGETS, metrics)


def test_metrics_without_a_key_name_it_and_the_file(synthetic: Write) -> None:
    metrics = synthetic() / "results/metrics"
    path = metrics / "finetune/small.json"
    document = json.loads(path.read_text())
    del document["runs"][0]["test_score"]
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=r"small\.json \(seernet\) lacks 'test_score'"):
        collect(BUDGETS, metrics)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_metrics_are_refused(synthetic: Write, text: str) -> None:
    metrics = synthetic() / "results/metrics"
    (metrics / "finetune/small.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"cannot read .*small\.json"):
        collect(BUDGETS, metrics)


@pytest.mark.parametrize("name", ["na", "2024", "null"])
def test_table_survives_the_file_with_any_budget_name(synthetic: Write, name: str) -> None:
    root = synthetic(budgets=1)
    for stage in ("finetune", "baseline"):
        folder = root / "results/metrics" / stage
        shutil.move(folder / "tiny.json", folder / f"{name}.json")
    table = collect((name,), root / "results/metrics")
    table.to_csv(root / "results/tradeoff.csv", index=False)
    pd.testing.assert_frame_equal(Artifacts(root).tradeoff(), table, check_dtype=False)


def test_summary_averages_seeds_and_keeps_their_range() -> None:
    rows = pd.DataFrame(
        {
            "budget": ["a", "a"],
            "method": ["seernet", "seernet"],
            "seed": [0, 1],
            **{key: [1.0, 1.0] for key in ("cost_bops", "bops_ratio", "macs", "parameters")},
            **{key: [1.0, 1.0] for key in ("size_bytes", "predicted_score", "baseline_score")},
            "search_score": [0.5, 0.7],
            "test_score": [0.4, 0.8],
        }
    )
    (row,) = summarize(rows).to_dict("records")
    assert row["seeds"] == 2
    assert row["test_score"] == pytest.approx(0.6)
    assert (row["test_low"], row["test_high"]) == (0.4, 0.8)
    assert (row["search_low"], row["search_high"]) == (0.5, 0.7)


def test_layer_table_counts_kept_channels() -> None:
    def layer(name: str, out: int, outputs: dict[str, int]) -> Layer:
        return Layer(name, "conv", 1, 1, 3, out, {}, outputs, False, True, False)

    graph = NetworkGraph((3, 8, 8), (layer("a", 16, {"g": 16}), layer("b", 10, {})), (), (), (), {})
    policy = {
        "pruning_ratio": {"g": 0.25},
        "weight_bits": {"a": 4, "b": 8},
        "act_bits": {"a": 5, "b": 8},
    }
    table = layer_table(graph, {"small": policy})
    assert list(table["kept"]) == [12, 10]
    assert list(table["weight_bits"]) == [4, 8]
    assert list(table["act_bits"]) == [5, 8]


def test_compute_table_adds_budgets_up_and_skips_missing_random() -> None:
    table = compute_table(
        {"train_macs": 7},
        {"train_macs": {"sensitivity": 4, "initial": 1, "active": 2, "random": 3}},
        [{"train_macs": 10}, {"train_macs": 20}],
        [
            {"uniform": {"train_macs": 5, "short_train_macs": 100}, "random": None},
            {"uniform": {"train_macs": 6, "short_train_macs": 200}, "random": {"train_macs": 9}},
        ],
    )
    assert list(table["train_macs"]) == [7, 4, 1, 2, 30, 311, 3, 9]


def test_compute_table_of_an_initial_design_alone() -> None:
    sample = {"train_macs": {"initial": 1, "random": 3}}
    table = compute_table({"train_macs": 7}, sample, [], [])
    assert list(table["train_macs"]) == [7, 0, 1, 0, 0, 0, 3, 0]
