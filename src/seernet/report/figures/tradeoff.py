"""Score against cost: the finetuned networks, and the policies measured on the way to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seernet.report.figures.style import (
    FAINT,
    INK,
    MARKS,
    cost_axis,
    legend_below,
    log_axis,
    log_limits,
    metric_label,
    new_figure,
    panel_letter,
    score_limits,
    styled,
)

ORIGINS = {
    "random": ("Random", FAINT, "^"),
    "initial": ("SeerNet, initial", "#8fa8c9", "D"),
    "active": ("SeerNet, active", MARKS["seernet"].color, "o"),
}
# For each cost, the baseline's, and what a ratio of both is of; its latency is not in the metrics.
_BASELINE = {
    "cost_bops": ("baseline_bops", "BOPs"),
    "macs": ("baseline_macs", "MACs"),
    "size_bytes": ("baseline_size_bytes", "bytes"),
}


@styled
def tradeoff(
    summary: pd.DataFrame,
    evaluations: pd.DataFrame,
    pretrain: Mapping[str, Any],
    cost: str = "cost_bops",
) -> Figure:
    """Test scores of the finetuned networks (a), and all short evaluations, against BOPs (b).

    Args:
        summary: What `seernet.report.tables.summarize` returns; several seeds get a min-max bar.
        evaluations: `evaluations.csv`.
        pretrain: Metrics of the baseline.
        cost: Column of `summary` for (a); see `seernet.report.tables.shown_cost`.

    Returns:
        The figure.
    """
    measured = evaluations.dropna(subset=["score"])
    figure = new_figure(3.6)
    finetuned, short = figure.subplots(1, 2)
    for axes, column, rows in ((finetuned, cost, summary), (short, "cost_bops", measured)):
        unit, label = cost_axis(column, summary[column].max())
        if axes is finetuned:
            _finetuned(axes, summary, column, unit)
        else:
            _short(axes, measured, pretrain["search_score"], unit)
        low, high = log_limits(rows[column] / unit)
        _cost_axis(axes, low, high, label)
        if column in _BASELINE:
            key, what = _BASELINE[column]
            _ratio_axis(axes, pretrain[key] / unit, low, high, what)
        score_limits(axes)
        legend_below(axes, 2, 0.22)
    finetuned.set_ylabel(metric_label(pretrain["metric"], "Test"))
    short.set_ylabel(metric_label(pretrain["metric"]))
    panel_letter(finetuned, "a", "finetuned, test split")
    panel_letter(short, "b", "short evaluations, search split")
    return figure


def _finetuned(axes: Axes, summary: pd.DataFrame, cost: str, unit: float) -> None:
    baseline = 100 * summary["baseline_score"].iloc[0]
    axes.axhline(baseline, color=INK, lw=0.9, ls=(0, (6, 2)), label="Baseline (32 bits)")
    for method in dict.fromkeys(summary["method"]):
        mark = MARKS[method]
        rows = summary[summary["method"] == method].sort_values(cost)
        draw_scores(
            axes,
            rows,
            "test",
            rows[cost] / unit,
            color=mark.color,
            marker=mark.marker,
            ls=mark.line,
            label=mark.label,
        )
    axes.margins(y=0.12)


def draw_scores(axes: Axes, rows: pd.DataFrame, split: str, cost: pd.Series, **style: Any) -> None:
    """Draw finetuned scores in percent against cost, with min-max bars where seeds were repeated.

    Args:
        axes: Where to.
        rows: Rows of a summary.
        split: `test` or `search`.
        cost: Of each row, in units of the axis.
        style: Of `Axes.errorbar`.
    """
    score = 100 * rows[f"{split}_score"]
    bars = None
    if (rows["seeds"] > 1).any():
        bars = [score - 100 * rows[f"{split}_low"], 100 * rows[f"{split}_high"] - score]
    axes.errorbar(
        cost,
        score,
        yerr=bars,
        capsize=2,
        elinewidth=0.8,
        markeredgecolor="white",
        markeredgewidth=0.6,
        **style,
    )


def _short(axes: Axes, measured: pd.DataFrame, baseline: float, unit: float) -> None:
    axes.axhline(100 * baseline, color=INK, lw=0.9, ls=(0, (6, 2)), label="Baseline (32 bits)")
    for origin, (label, color, marker) in ORIGINS.items():
        rows = measured[measured["origin"] == origin]
        if len(rows):
            axes.scatter(
                rows["cost_bops"] / unit,
                100 * rows["score"],
                s=11,
                color=color,
                marker=marker,
                linewidths=0,
                alpha=0.9,
                label=label,
            )


def _cost_axis(axes: Axes, low: float, high: float, label: str) -> None:
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    log_axis(axes.xaxis, low, high)
    axes.set_xlabel(label)


def _ratio_axis(axes: Axes, baseline: float, low: float, high: float, what: str) -> None:
    """A second axis on top: how many times cheaper than the baseline at 32 bits."""

    top = axes.twiny()
    top.set_xscale("log")
    top.set_xlim(baseline / low, baseline / high)
    log_axis(top.xaxis, baseline / high, baseline / low)
    top.grid(visible=False)
    top.spines["top"].set_visible(True)
    top.set_xlabel(f"{what} of the baseline / {what}", fontsize=7)
    top.tick_params(labelsize=7)
