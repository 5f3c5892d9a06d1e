"""How far the predictor can be trusted: its held-out errors, and how well it knows them."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seernet.report.figures.style import (
    FAINT,
    INK,
    MARKS,
    metric_label,
    new_figure,
    panel_letter,
    styled,
)

NOMINAL = np.linspace(0.05, 0.95, 19)
FAMILIES = {"gp": "Gaussian process", "ensemble": "Deep ensemble"}
_LOWEST = -1.0  # R2 that is drawn: one from few measurements may lie far below
_MAIN, _OTHER, _THIRD = MARKS["seernet"], MARKS["uniform"], MARKS["random"]


@styled
def predictor(
    predictions: pd.DataFrame, curve: pd.DataFrame, fit: Mapping[str, Any], metric: str
) -> Figure:
    """Predicted against measured (a), coverage (b), and error against measurements (c, d).

    Args:
        predictions: `cross_validation.csv`: `family, score, mean, std`, scores in [0, 1].
        curve: `learning_curve.csv`: `evaluations, rmse, kendall_tau, r2`; empty where too few
            random policies could be measured.
        fit: Metrics of `fit`.
        metric: Which score it is, `top1` or `map`.

    Returns:
        The figure.
    """
    figure = new_figure(5.6)
    (scatter, coverage), (error, rank) = figure.subplots(2, 2)
    chosen = fit["family"]
    _scatter(scatter, predictions[predictions["family"] == chosen], fit, metric)
    _coverage(coverage, predictions, chosen)
    _learning(error, rank, curve)
    titles = (
        f"held-out predictions, {FAMILIES.get(chosen, chosen)}",
        "calibration of the uncertainty",
        "error",
        "ranking and explained variance",
    )
    for axes, letter, title in zip((scatter, coverage, error, rank), "abcd", titles, strict=True):
        panel_letter(axes, letter, title)
    return figure


def observed_coverage(predictions: pd.DataFrame) -> np.ndarray:
    """How often the measured score falls inside the central interval of each nominal coverage.

    Args:
        predictions: `score, mean, std` of held-out predictions.

    Returns:
        One fraction in [0, 1] for each of `NOMINAL`.
    """
    surprise = ((predictions["score"] - predictions["mean"]).abs() / predictions["std"]).to_numpy()
    quantiles = np.array([NormalDist().inv_cdf((1 + level) / 2) for level in NOMINAL])
    return np.asarray((surprise[:, None] <= quantiles).mean(axis=0))


def _scatter(axes: Axes, rows: pd.DataFrame, fit: Mapping[str, Any], metric: str) -> None:
    measured, mean = 100 * rows["score"], 100 * rows["mean"]
    axes.errorbar(
        measured,
        mean,
        yerr=NormalDist().inv_cdf(0.9) * 100 * rows["std"],
        fmt="none",
        ecolor=FAINT,
        elinewidth=0.8,
        zorder=1,
    )
    axes.scatter(measured, mean, s=13, color=_MAIN.color, linewidths=0, zorder=2)
    low, high = min(measured.min(), mean.min()), max(measured.max(), mean.max())
    room = 0.06 * max(high - low, 0.1)
    limits = (low - room, high + room)
    axes.plot(limits, limits, color=INK, lw=0.8, ls=(0, (6, 2)), zorder=0)
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_xlabel(metric_label(metric, "Measured"))
    axes.set_ylabel(metric_label(metric, "Predicted"))
    text = (
        f"n = {len(rows)}\nR² = {fit['r2']:.2f}\ntau = {fit['kendall_tau']:.2f}\n"
        f"RMSE = {100 * fit['rmse']:.1f} points"
    )
    axes.text(
        0.04,
        0.96,
        text,
        transform=axes.transAxes,
        va="top",
        fontsize=7,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )


def _coverage(axes: Axes, predictions: pd.DataFrame, chosen: str) -> None:
    marks = iter((_OTHER, _THIRD))
    count = int((predictions["family"] == chosen).sum())
    spread = 200 * np.sqrt(NOMINAL * (1 - NOMINAL) / max(count, 1))
    axes.fill_between(
        100 * NOMINAL,
        100 * NOMINAL - spread,
        100 * NOMINAL + spread,
        lw=0,
        color="#eceef1",
        label=f"Chance alone, n = {count}",
    )
    axes.plot([0, 100], [0, 100], color=INK, lw=0.8, ls=(0, (6, 2)))
    for family in sorted(set(predictions["family"])):
        rows = predictions[predictions["family"] == family]
        mark = _MAIN if family == chosen else next(marks, _THIRD)
        axes.plot(
            100 * NOMINAL,
            100 * observed_coverage(rows),
            color=mark.color,
            ls=mark.line,
            marker=mark.marker,
            ms=3,
            label=FAMILIES.get(family, family),
        )
    axes.set(xlim=(0, 100), ylim=(0, 100))
    axes.set_xlabel("Nominal coverage of the interval (%)")
    axes.set_ylabel("Measured scores inside it (%)")
    axes.legend(loc="best")


def _learning(error: Axes, rank: Axes, curve: pd.DataFrame) -> None:
    error.set_ylabel("RMSE (percentage points)")
    rank.set_ylabel("Agreement, held out (1 = perfect)")
    _curve(error, curve, {"rmse": ("RMSE", _MAIN)}, 100.0)
    drawn = curve.assign(r2=curve["r2"].clip(lower=_LOWEST))
    _curve(rank, drawn, {"kendall_tau": ("Kendall's tau", _MAIN), "r2": ("R²", _OTHER)}, 1.0)
    if curve.empty:
        for axes in (error, rank):
            note = "Too few random policies measured\nto hold the predictor against"
            axes.text(0.5, 0.5, note, transform=axes.transAxes, ha="center", va="center")
            axes.set(xticks=[], yticks=[])
        return
    error.set_ylim(0.0, 1.15 * max(100.0 * curve["rmse"].max(), 0.1))
    rank.set_ylim(min(0.0, *rank.get_ylim()), 1.0)
    rank.legend(loc="best")


def _curve(
    axes: Axes, curve: pd.DataFrame, columns: Mapping[str, tuple[str, Any]], scale: float
) -> None:
    for column, (label, mark) in columns.items():
        axes.plot(
            curve["evaluations"],
            scale * curve[column],
            color=mark.color,
            ls=mark.line,
            marker=mark.marker,
            ms=4,
            label=label,
        )
    axes.set_xlabel("Measured policies")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
