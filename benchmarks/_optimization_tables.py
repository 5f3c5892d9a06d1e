"""The tables of `policy_optimization.py` for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from _optimizers import RIVALS
from _problems import NETWORKS
from _shared import markdown

SAME = 1e-4  # values this close count as equal
FRONT = 100  # budgets in one call


def render(summary: dict[str, Any]) -> str:
    """The tables for a terminal."""
    parts: list[Callable[[dict[str, Any]], str]] = [_exact, _rivals, _ablation, _penalty, _fronts]
    return "\n\n".join(part(summary) for part in parts)


def _exact(summary: dict[str, Any]) -> str:
    lines = []
    for network in NETWORKS:
        found = [row for row in summary["additive"] if row["network"] == network]
        gaps = [row["bound"] - row["value"] for row in found]
        proven = sum(row["bound"] - row["best"] <= 1e-4 for row in found)
        beaten = sum(row["best"] < row["value"] - SAME for row in found)
        lines.append(
            [
                network,
                len(found),
                f"{np.mean(gaps):.5f}",
                f"{max(gaps):.5f}",
                f"{proven} proven, {beaten} beaten by SeerNet",
                f"{np.mean([row['seconds'] for row in found]):.2f}",
                f"{np.mean([row['solver_seconds'] for row in found]):.1f}",
            ]
        )
    header = ["(a)", "problems", "mean gap to the bound", "largest", "optima", "s", "solver, s"]
    return markdown(header, lines)


def _rivals(summary: dict[str, Any]) -> str:
    lines = []
    rows = summary["fitted"]
    best = [max(row["value"], *(row[name][0] for name in RIVALS)) for row in rows]
    own = np.array([row["value"] for row in rows])
    lines.append(
        ["SeerNet", f"{np.mean(best - own):.5f}", "", f"{_share(own >= best - np.array(SAME))}"]
    )
    for name in RIVALS:
        once, tenfold = np.array([row[name] for row in rows]).T
        lines.append(
            [
                name,
                f"{np.mean(own - once):.4f}",
                f"{np.mean(own - tenfold):.4f}",
                _share(tenfold >= own - SAME),
            ]
        )
    header = ["(b)", "behind SeerNet at equal time", "at 10 x the time", "level with it by then"]
    return markdown(header, lines)


def _share(flags: Any) -> str:
    return f"{100 * float(np.mean(flags)):.0f} % of {len(flags)}"


def _ablation(summary: dict[str, Any]) -> str:
    lines = [
        [part, *(f"{row[kind][key]:.4f}" for kind in row for key in ("mean", "largest"))]
        for part, row in summary["ablation"].items()
    ]
    header = ["(c) without", "rounded: mean gap", "largest", "searched: mean gap", "largest"]
    return markdown(header, lines)


def _penalty(summary: dict[str, Any]) -> str:
    lines = [
        [kappa, f"{r['minus_default']:+.4f} [{r['low']:+.4f}, {r['high']:+.4f}]"]
        for kappa, r in summary["penalty"].items()
    ]
    return markdown(["(c) kappa", "true score minus that of kappa 2"], lines)


def _fronts(summary: dict[str, Any]) -> str:
    lines = [
        [
            n,
            f"{r['seconds']:.2f}",
            f"{r['memory_mb']:.0f}",
            f"{r['mean_gap']:.5f}",
            f"{r['largest_gap']:.5f}",
        ]
        for n, r in summary["front"].items()
    ]
    header = [f"(d) {FRONT} budgets", "s", "process, MB", "mean gap to one by one", "largest"]
    return markdown(header, lines)
