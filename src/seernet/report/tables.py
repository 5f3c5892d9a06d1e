"""Tables of a run: the trade-off of cost and score, and what figures and page draw of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from seernet.artifacts import METRICS
from seernet.errors import ArtifactError
from seernet.graph import Layer, NetworkGraph
from seernet.report.artifacts import read_metrics

METHODS = ("seernet", "uniform", "random")
COLUMNS = (
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
)
_NETWORK = ("cost_bops", "bops_ratio", "macs", "parameters", "size_bytes", "predicted_score")
LATENCY = "latency_ms"  # a last column, where a budget limits it
_LIMITED = {"bops": "cost_bops", "macs": "macs", "size_bytes": "size_bytes", LATENCY: LATENCY}
_RUN = ("seed", "search_score", "test_score")


def collect(budgets: Iterable[str], metrics: Path = METRICS) -> pd.DataFrame:
    """Gather the finetuned networks of all budgets and methods.

    Rows are ordered by the cost of the budget's SeerNet policy, then by method and seed, so the
    order of `budgets` does not matter.

    Args:
        budgets: Exactly the budgets to collect; files of others are not read.
        metrics: Folder that holds `finetune/<budget>.json` and `baseline/<budget>.json`.

    Returns:
        The columns `COLUMNS`; costs in BOPs, sizes in bytes, scores in [0, 1]. Where a
        budget limits latency, a last one, `latency_ms`.

    Raises:
        ArtifactError: If a file is missing, damaged, or lacks a key.
    """
    ordered: list[tuple[float, str, list[dict[str, Any]]]] = []
    for budget in budgets:
        rows = list(_budget_rows(budget, metrics))
        ordered.append((rows[0]["cost_bops"], budget, rows))
    rows = [row for _, _, rows in sorted(ordered, key=lambda item: item[:2]) for row in rows]
    timed = [LATENCY] if any(LATENCY in row for row in rows) else []
    return pd.DataFrame(rows, columns=[*COLUMNS, *timed])


def _budget_rows(budget: str, metrics: Path) -> Iterator[dict[str, Any]]:
    """Rows of one budget, SeerNet's first; a method for which no policy fits has none."""
    finetune = read_metrics(metrics, "finetune", budget)
    baseline = read_metrics(metrics, "baseline", budget)
    networks = {"seernet": finetune, **{name: baseline.get(name) for name in METHODS[1:]}}
    for method, network in networks.items():
        if network is None:
            continue
        stage = "finetune" if method == "seernet" else "baseline"
        try:
            shared = {key: network[key] for key in _NETWORK}
            shared["baseline_score"] = finetune["baseline_score"]
            if LATENCY in network:
                shared[LATENCY] = network[LATENCY]
            for run in sorted(network["runs"], key=lambda run: run["seed"]):
                yield {"budget": budget, "method": method, **{k: run[k] for k in _RUN}, **shared}
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{metrics / stage / budget}.json ({method}) lacks {error}; "
                f"write it again: `dvc repro -f {stage}@{budget}`."
            ) from error


def shown_cost(limits: Iterable[Mapping[str, float]]) -> str:
    """The column of costs that scores are drawn over: one that all budgets limit, or BOPs.

    Args:
        limits: Of each budget, by cost: `limits` in the metrics of `optimize`.
    """
    named = list(limits)
    shared = (cost for cost in _LIMITED if all(cost in each for each in named))
    return _LIMITED[next(shared, "bops")]


def summarize(tradeoff: pd.DataFrame) -> pd.DataFrame:
    """Average the seeds: one row for each budget and method, in the order of `tradeoff`.

    Args:
        tradeoff: What `collect` returns.

    Returns:
        Its columns without `seed`, scores averaged, with `seeds` (how many), and the smallest and
        largest score over seeds as `test_low`, `test_high`, `search_low`, `search_high`.
    """
    timed = [LATENCY] if LATENCY in tradeoff else []
    groups = tradeoff.groupby(["budget", "method"], sort=False)
    summary = groups.agg(
        seeds=("seed", "size"),
        **{key: (key, "first") for key in (*_NETWORK, *timed, "baseline_score")},
        search_score=("search_score", "mean"),
        search_low=("search_score", "min"),
        search_high=("search_score", "max"),
        test_score=("test_score", "mean"),
        test_low=("test_score", "min"),
        test_high=("test_score", "max"),
    )
    return summary.reset_index()


def layer_table(graph: NetworkGraph, policies: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What each policy does to each layer.

    Args:
        graph: The baseline network.
        policies: For each budget its policy, as `models/policies/<budget>.json` holds it.

    Returns:
        `budget, layer, edge, weight_bits, act_bits, channels, kept` in the order of `policies`
        and of execution; `channels` are the layer's outputs at full width, `kept` those left.
    """
    rows = [
        {
            "budget": budget,
            "layer": layer.name,
            "edge": layer.edge,
            "weight_bits": policy["weight_bits"].get(layer.name),
            "act_bits": policy["act_bits"].get(layer.name),
            "channels": layer.out_features,
            "kept": _kept(layer, policy["pruning_ratio"]),
        }
        for budget, policy in policies.items()
        for layer in graph.layers
    ]
    return pd.DataFrame(rows)


def _kept(layer: Layer, ratios: Mapping[str, float]) -> int:
    removed = (
        round(features * ratios.get(group, 0.0)) for group, features in layer.outputs.items()
    )
    return layer.out_features - sum(removed)


def compute_table(
    pretrain: Mapping[str, Any],
    sample: Mapping[str, Any],
    finetune: Iterable[Mapping[str, Any]],
    baseline: Iterable[Mapping[str, Any]],
) -> pd.DataFrame:
    """Where the compute of training and of measuring policies went.

    Not counted are the baseline's soft targets, nor the scoring in pretraining and finetuning.

    Args:
        pretrain: Metrics of `pretrain`.
        sample: Metrics of `sample`.
        finetune: Metrics of `finetune`, one for each budget.
        baseline: Metrics of `baseline`, one for each budget.

    Returns:
        `phase, method, train_macs`; `method` is `shared` for what every method needs. Choosing a
        uniform policy takes short measurements of its own (`short_train_macs`), which count.
    """
    baseline = list(baseline)
    measured = sample["train_macs"]
    others = {
        name: sum(
            entry[name]["train_macs"] + entry[name].get("short_train_macs", 0)
            for entry in baseline
            if entry.get(name)
        )
        for name in METHODS[1:]
    }
    rows = [
        ("Pretrain the baseline", "shared", pretrain["train_macs"]),
        ("Measure single places", "seernet", measured.get("sensitivity", 0)),
        ("Measure initial policies", "seernet", measured.get("initial", 0)),
        ("Measure active policies", "seernet", measured.get("active", 0)),
        ("Finetune SeerNet policies", "seernet", sum(entry["train_macs"] for entry in finetune)),
        ("Choose and finetune uniform policies", "uniform", others["uniform"]),
        ("Measure random policies", "random", measured.get("random", 0)),
        ("Finetune random policies", "random", others["random"]),
    ]
    return pd.DataFrame(rows, columns=["phase", "method", "train_macs"])
