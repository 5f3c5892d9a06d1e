"""The predicted front: the best score to expect at each cost, and what became of the choices."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seernet.report.figures.style import (
    FAINT,
    INK,
    MARKS,
    legend_below,
    log_axis,
    log_limits,
    metric_label,
    new_figure,
    prefix,
    score_limits,
    styled,
)
from seernet.report.figures.tradeoff import draw_scores

BAND = 0.8
_LABEL_GAP = 0.028  # of the axis: the height of a rotated line of text


@styled
def front(
    front: pd.DataFrame, summary: pd.DataFrame, evaluations: pd.DataFrame, metric: str
) -> Figure:
    """The predicted front with its 80 % band, and the budgets that were chosen on it.

    Args:
        front: `front.csv`: `cost_bops, bops_ratio, mean, std`.
        summary: What `seernet.report.tables.summarize` returns.
        evaluations: `evaluations.csv`; scores that the predictor learnt from are drawn faintly.
        metric: Which score it is, `top1` or `map`.

    Returns:
        The figure.
    """
    chosen = summary[summary["method"] == "seernet"].sort_values("cost_bops")
    unit, name = prefix(max(chosen["cost_bops"].max(), front["cost_bops"].max()))
    figure = new_figure(4.2)
    axes = figure.subplots()
    learnt = evaluations[evaluations["origin"] != "random"].dropna(subset=["score"])
    axes.scatter(
        learnt["cost_bops"] / unit,
        100 * learnt["score"],
        s=10,
        color=FAINT,
        linewidths=0,
        label="Measured policies (short evaluations)",
    )
    _band(axes, front, unit)
    mark = MARKS["seernet"]
    axes.plot(
        chosen["cost_bops"] / unit,
        100 * chosen["predicted_score"],
        ls="none",
        marker="D",
        mfc="white",
        mec=mark.color,
        ms=5,
        label="Chosen policy, predicted",
    )
    draw_scores(
        axes,
        chosen,
        "search",
        chosen["cost_bops"] / unit,
        color=mark.color,
        marker="o",
        ms=6,
        ls="none",
        label="Chosen policy, finetuned (search split)",
    )
    low, high = log_limits(pd.concat([chosen["cost_bops"], front["cost_bops"]]) / unit, 0.03)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    log_axis(axes.xaxis, low, high)
    axes.set_xlabel(f"Cost ({name}BOPs)")
    axes.set_ylabel(metric_label(metric))
    score_limits(axes)
    _name_budgets(axes, list(chosen["budget"]), (chosen["cost_bops"] / unit).to_numpy())
    legend_below(axes, 3, 0.14)
    return figure


def _band(axes: Axes, front: pd.DataFrame, unit: float) -> None:
    color = MARKS["seernet"].color
    mean, half = 100 * front["mean"], 100 * NormalDist().inv_cdf((1 + BAND) / 2) * front["std"]
    cost = front["cost_bops"] / unit
    axes.fill_between(
        cost, mean - half, mean + half, color=color, alpha=0.15, lw=0, label=f"{BAND:.0%} interval"
    )
    axes.plot(cost, mean, color=color, label="Predicted front (short evaluations)")


def _name_budgets(axes: Axes, names: Sequence[str], costs: np.ndarray) -> None:
    """Write each budget's name above the axes, led to its cost; crowded names are moved apart."""
    low, high = np.log(axes.get_xlim())
    places = (np.log(costs) - low) / (high - low)
    for name, cost, place, shown in zip(names, costs, places, spread(places), strict=True):
        axes.axvline(cost, color=INK, lw=0.5, ls=":", zorder=0)
        axes.annotate(
            name,
            (place, 1.0),
            (shown, 1.05),
            xycoords="axes fraction",
            fontsize=7,
            textcoords="axes fraction",
            rotation=90,
            ha="center",
            va="bottom",
            arrowprops={
                "arrowstyle": "-",
                "lw": 0.5,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0.5, 0),
            },
        )


def spread(places: np.ndarray, gap: float = _LABEL_GAP) -> np.ndarray:
    """Move sorted positions on [0, 1] apart until neighbours are `gap` away, as little as it takes.

    Args:
        places: `n` positions, increasing.
        gap: Smallest distance between neighbours.

    Returns:
        `n` positions, increasing; each cluster stays centred on where its members were.
    """
    clusters: list[list[float]] = []
    for place in places:
        clusters.append([float(place)])
        while len(clusters) > 1 and _first(clusters[-1], gap) - _last(clusters[-2], gap) < gap:
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    return np.array(
        [_first(cluster, gap) + gap * i for cluster in clusters for i in range(len(cluster))]
    )


def _first(cluster: list[float], gap: float) -> float:
    return sum(cluster) / len(cluster) - gap * (len(cluster) - 1) / 2


def _last(cluster: list[float], gap: float) -> float:
    return sum(cluster) / len(cluster) + gap * (len(cluster) - 1) / 2
