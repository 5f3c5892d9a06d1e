"""The rivals of `policy_optimization.py`: each improves until its time is over.

All count the same way: the best feasible discrete policy found so far, at given moments.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from _problems import Case
from torch import Tensor

from seernet.optimization.grid import Grid

BATCH = 128


class Clock:
    """Notes the best feasible value at given moments after the start.

    Args:
        moments: Seconds, increasing; at the last one the rival stops.
    """

    def __init__(self, case: Case, moments: Sequence[float]) -> None:
        self.case = case
        self.moments = list(moments)
        self.values: list[float] = []
        self.best = -math.inf
        self.start = time.perf_counter()

    def over(self) -> bool:
        """Whether the time is up; moments that have passed are noted."""
        passed = time.perf_counter() - self.start
        while len(self.values) < len(self.moments) and passed >= self.moments[len(self.values)]:
            self.values.append(self.best)
        return len(self.values) == len(self.moments)

    def offer(self, values: Tensor, loads: Tensor) -> None:
        """Take note of evaluated discrete policies."""
        self.over()  # what was found after a moment does not count for it
        fits = loads <= 1.0
        if bool(fits.any()):
            self.best = max(self.best, float(values[fits].max()))


def random_search(case: Case, clock: Clock, seed: int) -> None:
    """Random policies that use up their budget: drawn, then lowered at random until they fit."""
    grid = Grid.of(case.space.levels)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        while not clock.over():
            uniform = torch.rand(BATCH, len(grid.low), generator=generator, dtype=torch.float64)
            points = grid.policies(grid.floor(_inside(case, grid, uniform)))
            clock.offer(case.objective(points), case.load(points))


def projected_gradient(case: Case, clock: Clock, seed: int) -> None:
    """Plain gradient steps from random points, stopped at the budget, as the published code does.

    Each step has a fixed length; the one that would leave the budget is not taken.
    """
    grid = Grid.of(case.space.levels)
    generator = torch.Generator().manual_seed(seed)
    while not clock.over():
        start = torch.rand(16, len(grid.low), generator=generator, dtype=torch.float64)
        u = _inside(case, grid, 0.5 * start)
        going = torch.ones(len(u), dtype=torch.bool)
        while bool(going.any()) and not clock.over():
            point = u.clone().requires_grad_()
            (slope,) = torch.autograd.grad(case.objective(point).sum(), point)
            with torch.no_grad():
                step = 0.05 * slope / slope.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
                trial = (u + step).clamp(0.0, 1.0)
                going &= (case.load(trial) <= 1.0) & ((trial - u).abs().amax(dim=1) > 1e-6)
                u = torch.where(going[:, None], trial, u)
        with torch.no_grad():
            points = grid.policies(grid.floor(u))
            clock.offer(case.objective(points), case.load(points))


def evolution(case: Case, clock: Clock, seed: int) -> None:
    """pymoo's genetic algorithm on level indices, the budget as a constraint."""
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair

    grid = Grid.of(case.space.levels)

    class Policies(Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            top = (grid.sizes - 1).numpy()
            super().__init__(n_var=len(top), n_obj=1, n_ieq_constr=1, xl=0 * top, xu=top, vtype=int)

        def _evaluate(
            self, x: np.ndarray, out: dict[str, object], *_: object, **__: object
        ) -> None:
            points = grid.policies(torch.from_numpy(x.astype(np.int64)))
            with torch.no_grad():
                values, loads = case.objective(points), case.load(points)
            clock.offer(values, loads)
            out["F"], out["G"] = -values.numpy()[:, None], loads.numpy()[:, None] - 1.0

    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(BATCH, len(grid.low), generator=generator, dtype=torch.float64)
    first = grid.floor(_inside(case, grid, uniform))  # feasible, else most of its time goes there
    algorithm = GA(
        pop_size=BATCH,
        sampling=first.numpy(),
        crossover=SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
        mutation=PM(eta=20, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    algorithm.setup(Policies(), seed=seed, termination=("n_gen", 10**9))
    while not clock.over():
        algorithm.next()


def _inside(case: Case, grid: Grid, points: Tensor) -> Tensor:
    """Move points towards the cheapest corner until they fit."""
    inside, outside = torch.zeros(len(points), 1), torch.ones(len(points), 1)
    with torch.no_grad():
        for _ in range(12):
            middle = (inside + outside) / 2
            fits = (case.load(grid.low + middle * (points - grid.low)) <= 1.0)[:, None]
            inside, outside = torch.where(fits, middle, inside), torch.where(fits, outside, middle)
    return grid.low + inside * (points - grid.low)


RIVALS: dict[str, Callable[[Case, Clock, int], None]] = {
    "evolution (pymoo)": evolution,
    "random": random_search,
    "projected gradient": projected_gradient,
}
