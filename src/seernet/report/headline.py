"""The table that a reader looks at first: what each budget costs, and what it loses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from seernet.report.figures.style import MARKS, cost_axis, metric_label
from seernet.report.tables import LATENCY


def headline(summary: pd.DataFrame, pretrain: Mapping[str, Any]) -> pd.DataFrame:
    """The baseline and every budget and method, as text in the units that people read.

    Args:
        summary: What `seernet.report.tables.summarize` returns.
        pretrain: Metrics of the baseline.

    Returns:
        One row for the baseline, then one for each row of `summary`. `Loss` is the baseline's test
        score minus the row's, in percentage points; a negative loss is a gain. Latency is that of
        the table of timed layers, and stands where a budget limits it.
    """
    timed = [LATENCY] if LATENCY in summary else []
    costs = ("cost_bops", "macs", "size_bytes", *timed)
    axes = {cost: cost_axis(cost, summary[cost].max()) for cost in costs}
    columns = [
        "Budget",
        "Method",
        axes["cost_bops"][1],
        "BOPs ratio (%)",
        *(axes[cost][1] for cost in costs[1:]),
        metric_label(pretrain["metric"], "Test"),
        "Loss (points)",
    ]
    baseline = 100 * summary["baseline_score"].iloc[0]
    first = (
        "none",
        "Baseline, 32 bits",
        _number(pretrain["baseline_bops"] / axes["cost_bops"][0]),
        "100",
        *(_number(pretrain[f"baseline_{cost}"] / axes[cost][0]) for cost in costs[1:3]),
        *("" for _ in timed),
        f"{baseline:.1f}",
        "",
    )
    rows = [
        (
            row["budget"],
            MARKS[row["method"]].label,
            _number(row["cost_bops"] / axes["cost_bops"][0]),
            f"{100 * row['bops_ratio']:.3g}",
            *(_number(row[cost] / axes[cost][0]) for cost in costs[1:]),
            _score(row),
            f"{baseline - 100 * row['test_score']:.1f}",
        )
        for row in summary.to_dict("records")
    ]
    return pd.DataFrame([first, *rows], columns=columns)


def _score(row: Mapping[Any, Any]) -> str:
    score = f"{100 * row['test_score']:.1f}"
    if row["seeds"] == 1:
        return score
    return f"{score} ({100 * row['test_low']:.1f} to {100 * row['test_high']:.1f})"


def _number(value: float) -> str:
    """Three significant digits, never an exponent; nothing where there is no number."""
    if value != value:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
