"""How well is accuracy predicted from measured policies, against what else one would use?

The table has columns `pruning_ratio_*`, `bits_*`, in any order, and `accuracy`; one row a policy.
In every repetition all methods meet the same shuffled folds. SeerNet sees physical features (kept
fractions, quantization noise 4^-bits) beside the raw columns, the peers the raw columns, as one
would hand them over.

    python benchmarks/predictor_table.py TABLE.csv                # 5 folds, 10 repetitions
    python benchmarks/predictor_table.py TABLE.csv --rows 50      # fit on 50 rows, test on the rest
    python benchmarks/predictor_table.py TABLE.csv --json         # one JSON object, nothing else
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _shared import Array, write_summary
from _table_methods import METHODS, Table
from scipy.stats import kendalltau

from seernet.predictor.validation import HALF_WIDTH_80
from seernet.progress import bar

FOLDS = 5


def splits(n: int, rows: int | None, seed: int) -> list[tuple[Array, Array]]:
    """Rows to fit on and to predict: five folds, or `rows` against all others."""
    order = np.random.default_rng(seed).permutation(n)
    if rows is not None:
        return [(order[:rows], order[rows:])]
    folds = np.array_split(order, FOLDS)
    return [(np.setdiff1d(order, fold, assume_unique=True), fold) for fold in folds]


def repetition(job: tuple[Table, int | None, int]) -> dict[str, dict[str, float]]:
    """All methods on the splits of one seed."""
    table, rows, seed = job
    torch.set_num_threads(1)
    parts = splits(len(table.scores), rows, seed)
    truth = np.concatenate([table.scores[test] for _, test in parts])
    found = {}
    for name, method in METHODS.items():
        predictions = [method(table, train, test, seed) for train, test in parts]
        mean = np.concatenate([m for m, _ in predictions])
        found[name] = figures(truth, mean)
        deviations = [s for _, s in predictions if s is not None]
        if deviations:
            inside = np.abs(truth - mean) <= HALF_WIDTH_80 * np.concatenate(deviations)
            found[name]["coverage80"] = float(inside.mean())
    return found


def figures(truth: Array, mean: Array) -> dict[str, float]:
    """How good predictions are."""
    error = np.square(truth - mean)
    spread = np.square(truth - truth.mean()).sum()
    tau = kendalltau(truth, mean).statistic
    return {
        "r2": float(1.0 - error.sum() / spread) if spread > 0 else 0.0,
        "kendall_tau": float(tau) if np.isfinite(tau) else 0.0,
        "rmse": float(np.sqrt(error.mean())),
    }


def summarize(found: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over the repetitions."""
    return {
        name: {key: statistics.mean(f[name][key] for f in found) for key in found[0][name]}
        for name in found[0]
    }


def render(found: Sequence[dict[str, dict[str, float]]]) -> str:
    """The table for a terminal (Markdown), means and standard deviations of the repetitions."""
    lines = [
        "| method | R2 | Kendall tau | RMSE | 80 % coverage |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in found[0]:
        cells = []
        for key, digits in (("r2", 3), ("kendall_tau", 3), ("rmse", 4), ("coverage80", 2)):
            values = [f[name][key] for f in found if key in f[name]]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            shown = f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}" if values else ""
            cells.append(shown)
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Compare the predictors on a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("table", type=Path, help="CSV file")
    parser.add_argument("--rows", type=int, help="fit on so many rows, test on the others")
    parser.add_argument("--repetitions", type=int, default=10, help="shuffle seeds (default 10)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--save", help="also write results/predictor_table/SAVE/summary.json")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    arguments = parser.parse_args()
    table = Table.read(arguments.table)
    fewest = (
        arguments.rows if arguments.rows is not None else len(table.scores) * (FOLDS - 1) // FOLDS
    )
    if fewest < 5 or fewest >= len(table.scores):
        parser.error(f"{len(table.scores)} rows are too few to fit on {fewest} and test on others")
    jobs: list[tuple[Any, ...]] = [
        (table, arguments.rows, seed) for seed in range(arguments.repetitions)
    ]
    with ProcessPoolExecutor(arguments.workers) as pool, bar(len(jobs), "repetitions", "") as shown:
        found = []
        for result in pool.map(repetition, jobs):
            found.append(result)
            shown.update()
    if arguments.save:
        write_summary(f"predictor_table/{arguments.save}", summarize(found))
    print(json.dumps(summarize(found), indent=2) if arguments.json else render(found))


if __name__ == "__main__":
    main()
