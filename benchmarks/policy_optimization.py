"""Does the optimizer find the best policy that the predictor knows, and how fast?

(a) Additive scores, whose optimum an integer program finds or bounds: the gap to it.
(b) Fitted predictors: against evolution (pymoo), random search, and plain gradient steps that stop
    at the budget (as the published code takes them), at equal time and at ten times that.
(c) What each part contributes: gaps to the best known value without it, before and after the local
    search; and what the uncertainty penalty does for the true score.
(d) A front of 100 budgets in one call: time and memory.

Spaces are those of ResNet-20 and MobileNetV2. Gaps are in units of accuracy (0.001 is 0.1 points).

    python benchmarks/policy_optimization.py
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import Any
from unittest import mock

import numpy as np
import torch
from _optimization_tables import FRONT, render
from _optimizers import RIVALS, Clock
from _problems import NETWORKS, Case, Program, additive_case, fitted_cases
from _shared import bootstrap, write_summary
from torch import Tensor

from seernet.config import OptimizeConfig
from seernet.optimization import barrier, optimize, optimize_many
from seernet.optimization.problem import Problem
from seernet.progress import bar

ROWS = {"ResNet-20": (64, 128), "MobileNetV2": (64, 200)}


def solve(case: Case, seed: int = 0, **changes: Any) -> tuple[float, float, Tensor]:
    """SeerNet's value of the objective, how long it took in s, and the policy (`d`)."""
    config = OptimizeConfig(kappa=case.kappa).model_copy(update=changes)
    begin = time.perf_counter()
    found = optimize(case.predict, [case.limit], case.space.levels, config, seed)
    taken = time.perf_counter() - begin
    u = found.u[None]
    with torch.no_grad():
        load = float(case.load(u)[0])
        if load > 1.0:
            raise SystemExit(f"error: a policy exceeds its budget, {load} of it: a bug; report it.")
        return float(case.objective(u)[0]), taken, found.u


def additive(job: tuple[str, int, float]) -> dict[str, Any]:
    """One problem of part (a), in a worker process."""
    network, seed, seconds = job
    torch.set_num_threads(1)
    case, gains = additive_case(network, seed)
    value, taken, _ = solve(case)
    begin = time.perf_counter()
    best, bound = Program(case.space, gains).solve(case.budget, seconds)
    return {
        "network": network,
        "seed": seed,
        "value": value,
        "best": best,
        "bound": bound,
        "seconds": taken,
        "solver_seconds": time.perf_counter() - begin,
    }


def versus(case: Case, seed: int) -> dict[str, Any]:
    """Part (b) of one case: every rival with ten times the time that SeerNet took."""
    value, taken, _ = solve(case, seed)
    row: dict[str, Any] = {"network": case.network, "value": value, "seconds": taken}
    for name, rival in RIVALS.items():
        clock = Clock(case, (taken, 10 * taken))
        rival(case, clock, seed)
        row[name] = clock.values
    return row


def _plain_steps(problem: Problem, starts: Tensor, region: Any, schedule: Any) -> Tensor:
    """The barrier's gradient in steps of one length for all coordinates: no adaptive steps."""
    u, velocity = starts, torch.zeros_like(starts)
    with torch.no_grad():
        spread = float(problem.objective(u).std(correction=0).clamp_min(1e-6))
    for step in range(schedule.iterations):
        progress = step / max(schedule.iterations - 1, 1)
        weight = schedule.barrier_weight * spread * barrier.FINAL_WEIGHT**progress
        cosine = (1 + math.cos(math.pi * progress)) / 2
        rate = schedule.learning_rate * (barrier.FINAL_RATE + (1 - barrier.FINAL_RATE) * cosine)
        slope = barrier._gradient(problem, u, region.budgets, weight, band=rate)
        slope = slope / slope.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
        velocity = barrier.BETA1 * velocity + (1 - barrier.BETA1) * slope
        u = barrier._step_inside(problem, u, rate * velocity, region)
    return u


@contextmanager
def without(part: str) -> Iterator[dict[str, Any]]:
    """Switch one part of the optimizer off; yields changes of its configuration."""
    module = "seernet.optimization"
    patches: dict[str, list[Any]] = {
        "barrier weight": [],
        "momentum": [mock.patch(f"{module}.barrier.BETA1", 0.0)],
        "adaptive steps": [mock.patch.dict(_globals(), {"ascend": _plain_steps})],
        "many starts": [],
        "ascent": [],
    }
    changes: dict[str, dict[str, Any]] = {
        "barrier weight": {"barrier_weight": 1e-9},
        "many starts": {"starts": 1},
        "ascent": {"iterations": 1, "learning_rate": 1e-9},
    }
    active = patches.get(part, [])
    for patch in active:
        patch.start()
    try:
        yield changes.get(part, {})
    finally:
        for patch in active:
            patch.stop()


def _globals() -> dict[str, Any]:
    found: dict[str, Any] = optimize.__globals__
    return found


PARTS = ("nothing", "barrier weight", "momentum", "adaptive steps", "many starts", "ascent")


def ablate(cases: Sequence[Case], best: Sequence[float]) -> dict[str, Any]:
    """Part (c): mean and largest gap to the best known value, without one part each."""
    found: dict[str, Any] = {}
    for part in PARTS:
        gaps: dict[str, list[float]] = {"rounded": [], "searched": []}
        with without(part) as changes:
            for case, goal in zip(cases, best, strict=True):
                gaps["searched"].append(goal - solve(case, **changes)[0])
                with mock.patch.dict(_globals(), {"oscillate": _only_rounded}):
                    gaps["rounded"].append(goal - solve(case, **changes)[0])
        found[part] = {
            kind: {"mean": float(np.mean(values)), "largest": float(np.max(values))}
            for kind, values in gaps.items()
        }
    return found


def _only_rounded(search: Any, inside: Tensor, starts: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """In place of the local search: the nearest levels where they fit, else those below."""
    rows = torch.arange(len(starts))
    with torch.no_grad():
        value, load = search.look(search.grid.policies(starts), rows)
        below, _ = search.look(search.grid.policies(inside), rows)
    fits = load <= 1.0
    return torch.where(fits[:, None], starts, inside), torch.where(fits, value, below)


def penalty(cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """True scores of what is chosen with and without the uncertainty penalty, same cases."""
    scores: dict[float, list[float]] = {}
    for kappa in (0.0, 1.0, 2.0):
        for case in cases:
            _, _, u = solve(replace(case, kappa=kappa))
            scores.setdefault(kappa, []).append(float(case.truth(u[None])[0]))
    reference = np.array(scores[2.0])
    found = {}
    for kappa, values in scores.items():
        gains = np.array(values) - reference
        low, high = bootstrap(len(gains), lambda draw, g=gains: float(g[draw].mean()))
        found[f"{kappa:g}"] = {"minus_default": float(gains.mean()), "low": low, "high": high}
    return found


def front(case: Case) -> dict[str, float]:
    """Part (d): a front in one call; memory is the whole process's peak."""
    whole = float(case.cost.baseline().bops)
    cheapest = torch.zeros(1, case.space.dimension, dtype=torch.float64)
    low = 1.05 * float(case.cost(cheapest).bops)
    budgets = torch.logspace(math.log10(low), math.log10(0.02 * whole), FRONT).double()
    config = OptimizeConfig(kappa=case.kappa)
    taken = []
    for _ in range(3):
        begin = time.perf_counter()
        found = optimize_many(case.predict, case.limit, budgets, case.space.levels, config, 0)
        taken.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gaps = []
    for k in range(2, FRONT, 12):
        alone, _, _ = solve(replace(case, budget=float(budgets[k])))
        with torch.no_grad():
            gaps.append(alone - float(case.objective(found[k].u[None])[0]))
    return {
        "seconds": float(np.median(taken)),
        "memory_mb": peak / 1024,
        "mean_gap": float(np.mean(gaps)),
        "largest_gap": float(np.max(gaps)),
    }


def main() -> None:
    """Solve everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--problems", type=int, default=25, help="additive ones a network")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the solver, each")
    parser.add_argument("--seeds", type=int, default=2, help="of fitted predictors")
    parser.add_argument("--jobs", type=int, default=2, help="solvers side by side")
    arguments = parser.parse_args()
    total = arguments.problems * len(NETWORKS) + 4 * arguments.seeds
    with bar(total, "problems", "") as shown:
        torch.set_num_threads(1)
        groups = [
            fitted_cases(network, rows, seed)
            for network in NETWORKS
            for rows in ROWS[network]
            for seed in range(arguments.seeds)
        ]
        fronts = {
            name: front(groups[i * 2 * arguments.seeds][0]) for i, name in enumerate(NETWORKS)
        }
        rows = []
        for group in groups:
            rows += [versus(case, seed) for seed, case in enumerate(group)]
            shown.update()
        cases = [case for group in groups for case in group]
        best = [max(r["value"], *(r[name][-1] for name in RIVALS)) for r in rows]
        ablation, doubt = ablate(cases, best), penalty(cases)
        jobs = [
            (network, seed, arguments.seconds)
            for network in NETWORKS
            for seed in range(arguments.problems)
        ]
        solved = []
        with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
            for row in pool.map(additive, jobs):
                solved.append(row)
                shown.update()
    summary = {
        "additive": solved,
        "fitted": rows,
        "ablation": ablation,
        "penalty": doubt,
        "front": fronts,
    }
    write_summary("policy_optimization", summary)
    print(render(summary))


if __name__ == "__main__":
    main()
