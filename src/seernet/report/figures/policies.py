"""What the chosen policies look like, layer by layer, and what finding them cost."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Colormap, Normalize
from matplotlib.figure import Figure

from seernet.report.figures.style import FAINT, INK, MARKS, WIDTH, new_figure, prefix, styled

# Above so many layers, cells are too narrow for numbers and names: the figure counts layers.
NAMED_LAYERS = 30
_NAME_LENGTH = 22
# Lightness falls steadily from one end to the other, so that the order survives in gray scale.
_COLORS = "Blues"


@styled
def policies(layers: pd.DataFrame) -> Figure:
    """Bit-widths and kept channels of every layer, one row of cells for each budget.

    Args:
        layers: What `seernet.report.tables.layer_table` returns.

    Returns:
        The figure: one map for `weight_bits`, one for `act_bits`, one for kept channels.
    """
    budgets = list(dict.fromkeys(layers["budget"]))
    names = list(dict.fromkeys(layers["layer"]))
    named = len(names) <= NAMED_LAYERS
    longest = max(len(_short(name)) for name in names)
    figure = new_figure(0.95 + 3 * (0.36 + 0.2 * len(budgets)) + (0.055 * longest if named else 0))
    panels = figure.subplots(3, 1, sharex=True)
    low = min(layers["weight_bits"].min(), layers["act_bits"].min())
    high = max(layers["weight_bits"].max(), layers["act_bits"].max())
    widths = np.arange(low, high + 2) - 0.5
    bits = BoundaryNorm(widths, 256)
    layers = layers.assign(kept=100 * layers["kept"] / layers["channels"])
    maps = (
        ("weight_bits", "(a) weights", "bits", bits),
        ("act_bits", "(b) activations", "bits", bits),
        ("kept", "(c) channels kept", "%", Normalize(0, 100)),
    )
    for axes, (column, title, unit, norm) in zip(panels, maps, strict=True):
        cells = layers.pivot(index="budget", columns="layer", values=column)
        values = cells.loc[budgets, names].to_numpy(dtype=float)
        _map(axes, values, norm, named)
        axes.set_yticks(range(len(budgets)), budgets)
        axes.set_title(f"{title} ({unit})")
        _colorbar(figure, axes, norm)
    _layer_axis(panels[-1], names, named)
    return figure


def _map(axes: Axes, values: np.ndarray, norm: Normalize, numbers: bool) -> None:
    colors: Colormap = matplotlib.colormaps[_COLORS].with_extremes(bad=FAINT)
    axes.imshow(np.ma.masked_invalid(values), cmap=colors, norm=norm, aspect="auto")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    rows, columns = values.shape
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    if numbers:
        axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    if not numbers:
        return
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = colors(norm(value))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
            axes.text(
                column,
                row,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=6,
                color="white" if dark else INK,
            )


def _colorbar(figure: Figure, axes: Axes, norm: Normalize) -> None:
    source = matplotlib.cm.ScalarMappable(norm, matplotlib.colormaps[_COLORS])
    bar = figure.colorbar(source, ax=axes, pad=0.01, fraction=0.03, aspect=12)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=6)
    bar.ax.grid(visible=False)
    if isinstance(norm, BoundaryNorm):
        widths = (norm.boundaries[:-1] + norm.boundaries[1:]) / 2
        bar.set_ticks([widths[0], widths[-1]], labels=[f"{widths[0]:.0f}", f"{widths[-1]:.0f}"])
    else:
        bar.set_ticks([0, 100])
    bar.ax.minorticks_off()


def _layer_axis(axes: Axes, names: list[str], named: bool) -> None:
    if named:
        axes.set_xticks(range(len(names)), [_short(name) for name in names], rotation=90)
        axes.set_xlabel("Layer, in order of execution")
        return
    counted = [1, *range(10, len(names) + 1, 10)]
    axes.set_xticks([number - 1 for number in counted], [str(number) for number in counted])
    axes.set_xlabel(f"Layer, in order of execution (1 to {len(names)})")


def _short(name: str) -> str:
    """A name whose parts are cut alike until it fits, so that different ones stay different."""
    parts = name.split(".")
    for length in range(max(map(len, parts)), 0, -1):
        short = ".".join(part[:length] for part in parts)
        if len(short) <= _NAME_LENGTH:
            return short
    return "…" + name[1 - _NAME_LENGTH :]


@styled
def compute(phases: pd.DataFrame) -> Figure:
    """Where the training compute went, as bars.

    Args:
        phases: What `seernet.report.tables.compute_table` returns.

    Returns:
        The figure; cost in MACs, a number that does not depend on the machine.
    """
    unit, name = prefix(phases["train_macs"].max())
    figure = new_figure(0.6 + 0.27 * len(phases), WIDTH)
    axes = figure.subplots()
    values = phases["train_macs"] / unit
    for row, (method, value) in enumerate(zip(phases["method"], values, strict=True)):
        mark = MARKS[method]
        axes.barh(
            row, value, height=0.62, facecolor=mark.color, edgecolor="white", lw=0, hatch=mark.hatch
        )
        axes.annotate(
            f"{value:.3g}",
            (value, row),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axes.set_yticks(range(len(phases)), phases["phase"])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"Training compute, all budgets together ({name}MACs)")
    return figure
