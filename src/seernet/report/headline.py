"""The table that a reader looks at first: what each budget costs, and what it loses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from seernet.report.figures.style import MARKS, metric_label, prefix


def headline(summary: pd.DataFrame, pretrain: Mapping[str, Any]) -> pd.DataFrame:
    """The baseline and every budget and method, as text in the units that people read.

    Args:
        summary: What `seernet.report.tables.summarize` returns.
        pretrain: Metrics of the baseline.

    Returns:
        One row for the baseline, then one for each row of `summary`. `Loss` is the baseline's test
        score minus the row's, in percentage points; a negative loss is a gain.
    """
    bops_unit, bops_name = prefix(summary["cost_bops"].max())
    size_unit, size_name = prefix(summary["size_bytes"].max())
    columns = [
        "Budget",
        "Method",
        f"Cost ({bops_name}BOPs)",
        "BOPs ratio (%)",
        f"Size ({size_name}B)",
        metric_label(pretrain["metric"], "Test"),
        "Loss (points)",
    ]
    baseline = 100 * summary["baseline_score"].iloc[0]
    first = (
        "none",
        "Baseline, 32 bits",
        _number(pretrain["baseline_bops"] / bops_unit),
        "100",
        _number(pretrain["baseline_size_bytes"] / size_unit),
        f"{baseline:.1f}",
        "",
    )
    rows = [
        (
            row["budget"],
            MARKS[row["method"]].label,
            _number(row["cost_bops"] / bops_unit),
            f"{100 * row['bops_ratio']:.3g}",
            _number(row["size_bytes"] / size_unit),
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
    """Three significant digits, never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
