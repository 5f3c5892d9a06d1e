"""Does it pick well in truth? Every policy of a small space is measured, so the best is known.

The space has 432 policies of a small network, each measured several times with different seeds; the
table is part of the repository. In each repetition every method sees one measurement of each policy
that it asks for (which of the several is drawn for each policy), and names a policy for each
budget. What it named is judged by the mean of the policy's other measurements: regret is the best
such mean within the budget less that of the policy named. All methods have the same numbers of
measurements. The oracle sees all single measurements and takes the highest; its regret is the
share of noise. The best of many means is a little too high too, by the same for all methods.
SeerNet's predictor is smoothed by soft scores, so rivals and oracle go by those, too, in rows of
their own; its probes of single places, which train nothing, are not counted, as in the pipeline.

    python benchmarks/regret.py --jobs 2     # searches that are kept in .store/ are not made again
    python benchmarks/regret.py --measure    # only to make the table again
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from _regret_methods import (
    Rows,
    Task,
    blind_search,
    evolution,
    knapsack,
    knapsack_checked,
    oracle,
    random_search,
    seernet,
    uniform,
)
from _regret_table import TABLES, Table, measure, parameters
from _shared import ROOT, Array, bootstrap, markdown, write_summary

from seernet.parallel import LocalExecutor, completed
from seernet.progress import bar
from seernet.store import Store, code_digest, default_root, digest, files_digest

COUNTS = (16, 32, 64)
BUDGETS = 6
CODE = ("config", "graph", "optimization", "policy", "predictor", "sampling")
RIVALS: dict[str, Callable[[Task, int], Rows]] = {
    "random search": random_search,
    "random search, blind to cost": blind_search,
    "evolution (NSGA-II)": evolution,
    "sensitivities, knapsack": knapsack,
    "sensitivities, knapsack, then measured": knapsack_checked,
    "uniform": uniform,
}
SEERNET, ORACLE, BY_SOFT = "SeerNet", "oracle of single measurements", "; soft scores"


def main() -> None:
    """Search, or measure what is missing of the table, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=40, help="of all methods (default 40)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--measure", action="store_true", help="make the table")
    parser.add_argument("--seeds", type=int, default=10, help="measurements of each policy (10)")
    arguments = parser.parse_args()
    if arguments.repetitions < 2 or arguments.seeds < 2:
        parser.error("--repetitions and --seeds must be at least 2")
    os.chdir(ROOT)
    if arguments.measure:
        measure(parameters(), arguments.seeds, arguments.jobs)
        return
    tasks = [task(number) for number in range(arguments.repetitions)]
    searches = search(arguments.repetitions, arguments.jobs)
    regrets: dict[str, list[list[Array]]] = {}
    for one, found in zip(tasks, searches, strict=True):
        chosen = {SEERNET: [found[str(n)]["chosen"] for n in COUNTS]}
        for seen, ending in ((one, ""), (replace(one, by_soft=True), BY_SOFT)):
            for name, rival in RIVALS.items():
                chosen[name + ending] = [rival(seen, n) for n in COUNTS]
            chosen[ORACLE + ending] = [oracle(seen)] * len(COUNTS)
        for name, rows in chosen.items():
            regrets.setdefault(name, []).append([regret(one, row) for row in rows])
    summary = summarize({k: np.array(v) for k, v in regrets.items()}, tasks, searches)
    write_summary("regret", summary)
    print(render(summary))


@lru_cache(maxsize=1)
def table() -> Table:
    """The table, read once."""
    return Table.read(parameters())


def task(number: int) -> Task:
    """A repetition: of each policy, one measurement that searches see, drawn at random."""
    policies, measurements = table().scores.shape
    seen = np.random.default_rng(number).integers(0, measurements, policies)
    costs = table().costs
    budgets = np.geomspace(costs.min(), costs.max(), BUDGETS + 2)[1:-1]
    return Task(table(), seen, number, budgets)


def regret(one: Task, chosen: Rows) -> Array:
    """Points lost against the policy that is truly the best within each budget."""
    return 100.0 * (one.truth[one.best(one.truth)] - one.truth[chosen])


def search(repetitions: int, jobs: int) -> list[dict[str, Any]]:
    """SeerNet's choices in each repetition, read if they were made before with the same code."""
    params = parameters()
    sections = [params.sample, params.predictor, params.optimize, params.space]
    known = [section.model_dump() for section in sections]
    identity = [known, code_digest(CODE), files_digest(TABLES), COUNTS, BUDGETS]
    keys = [digest([identity, number]) for number in range(repetitions)]
    store = Store(default_root() / "regret" / "searches.sqlite")
    found = store.get(keys)
    missing = [number for number, key in enumerate(keys) if key not in found]
    with LocalExecutor(jobs) as executor, bar(repetitions, "searching", "search") as shown:
        shown.update(len(found))
        for place, record in completed(executor, search_one, missing):
            key = keys[missing[place]]
            found[key] = record
            store.put(key, record)
            shown.update()
    return [found[key] for key in keys]


def search_one(number: int) -> dict[str, Any]:
    """SeerNet in one repetition, in a worker process."""
    torch.set_num_threads(1)
    return seernet(task(number), parameters(), COUNTS)


def summarize(
    regrets: dict[str, Array], tasks: Sequence[Task], searches: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Means over repetitions and budgets with 95 % intervals over repetitions, in points.

    Args:
        regrets: Of each method, `repetitions x counts x budgets`.
        tasks: The repetitions.
        searches: What SeerNet did in each.
    """
    costs, scores = table().costs, table().scores
    truth = scores.mean(axis=1)
    best = truth[Task(table(), tasks[0].seen, 0, tasks[0].budgets).best(truth)]
    families = [[found[str(n)]["family"] for found in searches] for n in COUNTS]
    rivals = [name for name in regrets if name != SEERNET]
    return {
        "policies": len(costs),
        "measurements_of_each": scores.shape[1],
        "noise_points": 100.0 * float(np.sqrt(scores.var(axis=1, ddof=1).mean())),
        "repetitions": len(tasks),
        "counts": list(COUNTS),
        "gp_share": [names.count("gp") / len(names) for names in families],
        "budgets": [
            {"bops": float(budget), "policies": int((costs <= budget).sum()), "best": float(b)}
            for budget, b in zip(tasks[0].budgets, best, strict=True)
        ],
        "regret": {name: intervals(values) for name, values in regrets.items()},
        "seernet_minus": {name: intervals(regrets[SEERNET] - regrets[name]) for name in rivals},
        "regret_by_budget": {
            name: values.mean(axis=0).round(4).tolist() for name, values in regrets.items()
        },
    }


def intervals(values: Array) -> list[dict[str, float]]:
    """For each number of measurements the mean and its interval, over `r x counts x budgets`."""
    rows = []
    for column in values.mean(axis=2).T:
        low, high = bootstrap(len(column), lambda draw, c=column: float(c[draw].mean()))
        rows.append({"mean": float(column.mean()), "low": low, "high": high})
    return rows


def render(summary: dict[str, Any]) -> str:
    """Tables for a terminal and the README (Markdown)."""
    counts = summary["counts"]
    last, minus = counts[-1], summary["seernet_minus"]
    rows = [
        [name, *map(spell, cells), spell(minus[name][-1], "+") if name in minus else ""]
        for name, cells in summary["regret"].items()
    ]
    rival = min((n for n in minus if ORACLE not in n), key=lambda n: -minus[n][-1]["mean"])
    budgets, by_budget = summary["budgets"], summary["regret_by_budget"]
    shown = [SEERNET, rival, ORACLE]
    details = [
        ["policies that fit", *(b["policies"] for b in budgets)],
        ["best accuracy, %", *(f"{100 * b['best']:.1f}" for b in budgets)],
        *([f"regret of {name}", *(f"{x:.2f}" for x in by_budget[name][-1])] for name in shown),
    ]
    header = ["mean regret, points", *(f"{n} measurements" for n in counts)]
    return "\n\n".join(
        [
            f"{summary['policies']} policies, {summary['measurements_of_each']} measurements of "
            f"each that differ by {summary['noise_points']:.1f} points (standard deviation); "
            f"{summary['repetitions']} repetitions",
            markdown([*header, f"SeerNet's less this, {last}"], rows),
            markdown(
                [f"budget, kBOPs ({last} measurements)"]
                + [f"{b['bops'] / 1e3:.0f}" for b in budgets],
                details,
            ),
        ]
    )


def spell(cell: dict[str, float], sign: str = "") -> str:
    """A mean and its interval."""
    return "{mean:{s}.2f} [{low:{s}.2f}, {high:{s}.2f}]".format(**cell, s=sign)


if __name__ == "__main__":
    main()
