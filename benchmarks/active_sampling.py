"""Do actively chosen measurements teach the predictor more than random ones?

A predictor is fitted on the first n measurements of a search and held against test policies that
no search knows, each measured several times and averaged. Half of them are random and spread over
cost; the other half lie near the optimum at budgets all over the cost range (what an ascent finds
over a predictor of measurements of its own, some of it disturbed). Searches differ in one thing:

- each acquisition of the library, through the library's own loop;
- `random`: the same initial design and the same proposals spread over cost, no acquisition;
- `naive`: independent uniform draws in each coordinate, from the first one on.

"Share" is how many measurements a search needs for the error that `random` reaches with all of
its own, in percent of them; intervals are bootstrapped over the searches' seeds. Everything
measured is kept in `.store/`, so an interrupted run goes on; `results/active_sampling/measured.csv`
holds it too, for other predictors and orders to be tried on.

    dvc repro pretrain && python benchmarks/active_sampling.py
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from _searches import GUIDES, Bench, Curve, curve, test_policies, truth_of
from _shared import RESULTS, ROOT, Array, bootstrap, markdown, write_summary
from numpy.typing import NDArray
from scipy.stats import kendalltau

from seernet import artifacts
from seernet.config import load
from seernet.device import resolve
from seernet.evaluation import EvaluationSpec, Measurer
from seernet.graph import NetworkGraph
from seernet.parallel import LocalExecutor, completed
from seernet.policy import SearchSpace, Sensitivity, probe_policy, probes
from seernet.progress import bar
from seernet.store import Store, default_root

SEARCHES = ("integrated", "frontier", "variance", "gap", "random", "naive")


def figures(curves: Sequence[Curve], truth: Array, part: slice) -> dict[str, Array]:
    """Error and rank correlation on a part of the test policies, each `seeds x counts`."""
    rmse, tau = [], []
    for found in curves:
        rows = [predicted[part] for predicted in found.values()]
        rmse.append([float(np.sqrt(np.square(row - truth[part]).mean())) for row in rows])
        tau.append([float(kendalltau(row, truth[part]).statistic) for row in rows])
    return {"rmse": np.array(rmse), "kendall_tau": np.array(tau)}


def share(active: Array, random: Array, counts: Array) -> float:
    """Measurements until the mean error falls to the last one of `random`, relative to its own.

    Interpolated between fits; infinite if it never does.
    """
    curve = np.minimum.accumulate(active.mean(axis=0))
    goal = random.mean(axis=0)[-1]
    if curve[-1] > goal:
        return math.inf
    first = int(np.argmax(curve <= goal))
    if first == 0:
        return float(counts[0] / counts[-1])
    weight = (curve[first - 1] - goal) / (curve[first - 1] - curve[first])
    return float((counts[first - 1] + weight * (counts[first] - counts[first - 1])) / counts[-1])


def summarize(found: dict[str, list[Curve]], truth: Array) -> dict[str, Any]:
    """Curves, final figures and shares on all test policies, and on each half."""
    half = len(truth) // 2
    counts = np.array(list(found["random"][0]), dtype=float)
    summary: dict[str, Any] = {"counts": counts.tolist(), "parts": {}}
    for part, where in {
        "all": slice(None),
        "random": slice(0, half),
        "near-optimal": slice(half, None),
    }.items():
        values = {name: figures(curves, truth, where) for name, curves in found.items()}
        rows = {}
        for name, value in values.items():
            pair = value["rmse"], values["random"]["rmse"]

            def statistic(draw: NDArray[np.int64], pair: tuple[Array, Array] = pair) -> float:
                return share(pair[0][draw], pair[1][draw], counts)

            ends = (share(*pair, counts), *bootstrap(len(pair[0]), statistic))
            rows[name] = {
                **{key: interval(array) for key, array in value.items()},
                # JSON has no infinity: a share that is never reached is null.
                "share": [end if math.isfinite(end) else None for end in ends],
            }
        summary["parts"][part] = rows
    return summary


def interval(values: Array) -> dict[str, list[float]]:
    """Mean curve over seeds (`seeds x counts`) with its bootstrap interval."""
    ends = [bootstrap(len(column), lambda d, c=column: float(c[d].mean())) for column in values.T]
    low, high = zip(*ends, strict=True)
    return {"mean": values.mean(axis=0).tolist(), "low": list(low), "high": list(high)}


def render(summary: dict[str, Any]) -> str:
    """Tables for a terminal: errors at some numbers of measurements, and the shares."""
    counts = [int(count) for count in summary["counts"]]
    shown = sorted({0, len(counts) // 3, 2 * len(counts) // 3, len(counts) - 1})
    parts = []
    for part, rows in summary["parts"].items():
        header = ["search", *(f"RMSE at {counts[i]}, points" for i in shown), "tau", "share"]
        lines = []
        for name, row in rows.items():
            cells = [f"{100 * row['rmse']['mean'][i]:.2f}" for i in shown]
            share, low, high = (
                "never" if end is None else f"{100 * end:.0f} %" for end in row["share"]
            )
            lines.append(
                [
                    name,
                    *cells,
                    f"{row['kendall_tau']['mean'][-1]:.3f}",
                    f"{share} [{low}, {high}]",
                ]
            )
        parts.append(f"{part} test policies\n\n{markdown(header, lines)}")
    return "\n\n".join(parts)


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="of each search (default 10)")
    parser.add_argument("--test", type=int, default=96, help="test policies (default 96)")
    parser.add_argument("--repetitions", type=int, default=4, help="of each (default 4)")
    parser.add_argument("--evaluations", type=int, default=64, help="of a search (default 64)")
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=SEARCHES)
    arguments = parser.parse_args()
    os.chdir(ROOT)
    params = resolve(load())
    sample = params.sample.model_copy(update={"evaluations": arguments.evaluations})
    params = params.model_copy(update={"sample": sample})
    space = SearchSpace(NetworkGraph.load(artifacts.GRAPH), params.space)
    names = list(dict.fromkeys(["random", *arguments.searches]))
    jobs = [(name, seed) for seed in range(arguments.seeds) for name in names]
    asked = probes(space)
    each = params.sample.evaluations
    total = len(asked) + len(GUIDES) * each + arguments.test * arguments.repetitions
    with (
        LocalExecutor(params.sample.workers) as executor,
        bar(total + len(jobs) * each, "measuring policies", "policy") as shown,
    ):
        spec = EvaluationSpec.of(params)
        store = Store(default_root() / "evaluations.sqlite")
        found = Measurer(spec, store, executor, shown).divergences(
            [probe_policy(space, probe) for probe in asked]
        )
        pairs = [(probe, d.value) for probe, d in zip(asked, found, strict=True)]
        bench = Bench(params, space, Sensitivity(space, pairs))
        test = test_policies(bench, arguments.test, executor, shown)
        truth = truth_of(bench, test, arguments.repetitions, executor, shown)
        rows = [
            {"search": "test", **policy.to_row(), "score": score}
            for policy, score in zip(test, truth.tolist(), strict=True)
        ]
        curves: dict[str, list[Curve]] = {name: [{}] * arguments.seeds for name in names}
        work = [((bench, name, seed), test) for name, seed in jobs]
        for place, result in completed(executor, curve, work):
            name, seed = jobs[place]
            curves[name][seed], measured = result
            rows += [
                {"search": name, "seed": seed, **one.policy.to_row(), "score": one.score}
                | {"soft_score": one.soft}
                for one in measured
            ]
            shown.update(each)
    summary = {"seeds": arguments.seeds, "truth": truth.tolist(), **summarize(curves, truth)}
    write_summary("active_sampling", summary)
    table = pd.DataFrame(rows).sort_values(["search", "seed"], kind="stable")
    path = RESULTS / "active_sampling" / "measured.csv"
    table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    print(render(summary))


if __name__ == "__main__":
    main()
