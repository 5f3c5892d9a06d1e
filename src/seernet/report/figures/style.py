"""The one style of all figures: sizes, fonts, marks, units, and how a figure becomes a file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from seernet.errors import ArtifactError

WIDTH = 7.0  # inches: the text width of a two-column paper
INK = "#1a1a1a"
FAINT = "#c9ced6"
METRICS = {"top1": "Top-1 accuracy (%)", "map": "mAP@[.5:.95] (%)"}

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same on every machine
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "hatch.linewidth": 0.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Mark:
    """How one method is drawn, and what a legend calls it."""

    label: str
    color: str
    marker: str
    line: str
    hatch: str = ""


MARKS = {
    "seernet": Mark("SeerNet", "#123a6b", "o", "-"),
    "uniform": Mark("Uniform policy", "#c2571a", "s", "--", "////"),
    "random": Mark("Random search", "#7fae9a", "^", ":", "...."),
    "shared": Mark("Shared by all", "#8b9099", "D", "-."),
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under the report's style, leaving global settings alone."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure whose layout keeps labels and legends apart; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")


@styled
def save(figure: Figure, path: Path, dpi: int = 160) -> Path:
    """Write a PNG whose bytes depend on the drawing only: no date, no software version.

    Args:
        figure: What a function of this package returns.
        path: The file; its folder is made.
        dpi: Resolution, in pixels an inch.

    Returns:
        `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=dpi, metadata={"Software": None})
    return path


def metric_label(metric: str, kind: str = "") -> str:
    """What the axis of a score says.

    Args:
        metric: `top1` or `map`.
        kind: Which score it is, such as `Test`; empty for any.

    Raises:
        ArtifactError: If the metric is unknown.
    """
    if metric not in METRICS:
        raise ArtifactError(
            f"a metric must be one of {', '.join(METRICS)}, got {metric!r}; run pretrain again."
        )
    label = METRICS[metric]
    return f"{kind} {label.replace('Top', 'top')}" if kind else label


def prefix(largest: float) -> tuple[float, str]:
    """The SI prefix under which `largest` prints as 1 to 1000.

    Returns:
        The factor that a value is divided by, and the prefix: `(1e9, "G")`.
    """
    for factor, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= factor:
            return factor, name
    return 1.0, ""


def cost_axis(cost: str, largest: float) -> tuple[float, str]:
    """Divisor and label of an axis of costs.

    Args:
        cost: A column of `tradeoff.csv`: `cost_bops`, `macs`, `size_bytes` or `latency_ms`.
        largest: The largest cost.
    """
    if cost == "latency_ms":
        return 1.0, "Latency (ms)"
    factor, name = prefix(largest)
    quantity, unit = {
        "cost_bops": ("Cost", "BOPs"),
        "macs": ("Cost", "MACs"),
        "size_bytes": ("Size", "B"),
    }[cost]
    return factor, f"{quantity} ({name}{unit})"


def log_axis(axis: Axis, low: float, high: float) -> None:
    """Plain numbers on a logarithmic axis from `low` to `high`, few enough to read."""
    ratio = high / low
    digits = (1.0,) if ratio > 2000 else (1.0, 2.0, 5.0) if ratio > 8 else (1, 1.5, 2, 3, 4, 5, 7)
    if ratio < 1.6:
        axis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    else:
        axis.set_major_locator(LogLocator(base=10, subs=digits, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def log_limits(values: Iterable[float], margin: float = 0.06) -> tuple[float, float]:
    """Limits of a logarithmic axis around positive values: at least a factor two apart."""
    values = list(values)
    low, high = min(values), max(values)
    if high < 2 * low:
        middle = (low * high) ** 0.5
        low, high = middle / 2**0.5, middle * 2**0.5
    room = (high / low) ** margin
    return low / room, high * room


def panel_letter(axes: Axes, letter: str, text: str) -> None:
    """Name a panel, so that a caption can refer to it."""
    axes.set_title(f"({letter}) {text}")


def legend_below(axes: Axes, columns: int, drop: float) -> None:
    """Put the legend under the axes, where no data can lie; `drop` is in heights of the axes."""
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -drop),
        ncols=columns,
        columnspacing=1.4,
        handletextpad=0.5,
    )


def score_limits(axes: Axes) -> None:
    """Keep an axis of scores, in percent, inside what scores can be."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -2.0), min(high, 102.0))
