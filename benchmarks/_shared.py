"""What benchmarks share: tables for a terminal, summaries on disk, bootstrap intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RESAMPLES = 2000
Array = NDArray[np.float64]


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table for a terminal and the README."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write_summary(name: str, summary: Any) -> None:
    """Write `benchmarks/results/NAME/summary.json`."""
    path = RESULTS / name / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def bootstrap(
    count: int, statistic: Callable[[NDArray[np.int64]], float], level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a statistic of `count` cases that are drawn with replacement.

    Args:
        count: Number of cases.
        statistic: Its value for `count` indices of cases.
        level: Nominal coverage.
    """
    draws = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    values = [statistic(draw) for draw in draws]
    low, high = np.nanquantile(values, ((1.0 - level) / 2, (1.0 + level) / 2))
    return float(low), float(high)
