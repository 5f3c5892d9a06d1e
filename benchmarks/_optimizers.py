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
from seernet.sampling import SpreadDesign

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
    """Random policies that use 80 to 100 % of the budget, from the library's own design."""
    first = 0
    while not clock.over():
        points = _near_budget(case, seed, first)
        first += BATCH
        with torch.no_grad():
            clock.offer(case.objective(points), case.load(points))


def projected_gradient(case: Case, clock: Clock, seed: int) -> None:
    """Plain gradient steps from cheap random points, stopped at the budget, as the published code.

    Each step has a fixed length; the one that would leave the budget is not taken. Ends are rounded
    to the nearest levels where those fit, else down.
    """
    grid = Grid.of(case.space.levels)
    generator = torch.Generator().manual_seed(seed)
    while not clock.over():
        # From the cheapest corner to a tenth of each range: room to climb at all budgets here.
        u = 0.1 * torch.rand(16, len(grid.low), generator=generator, dtype=torch.float64)
        going = case.load(u) <= 1.0
        u = torch.where(going[:, None], u, torch.zeros_like(u))
        going = torch.ones_like(going)
        _offer_rounded(case, clock, grid, u)
        while bool(going.any()) and not clock.over():
            point = u.clone().requires_grad_()
            (slope,) = torch.autograd.grad(case.objective(point).sum(), point)
            with torch.no_grad():
                step = 0.05 * slope / slope.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
                trial = (u + step).clamp(0.0, 1.0)
                going &= (case.load(trial) <= 1.0) & ((trial - u).abs().amax(dim=1) > 1e-6)
                u = torch.where(going[:, None], trial, u)
        _offer_rounded(case, clock, grid, u)


def _offer_rounded(case: Case, clock: Clock, grid: Grid, u: Tensor) -> None:
    """Offer the discrete policies nearest to relaxed ones, and those below them."""
    with torch.no_grad():
        points = torch.cat([grid.policies(grid.nearest(u)), grid.policies(grid.floor(u))])
        clock.offer(case.objective(points), case.load(points))


def _near_budget(case: Case, seed: int, first: int) -> Tensor:
    """A batch of random policies that cost 80 to 100 % of the budget."""
    share = case.budget / float(case.cost.baseline().bops)
    return SpreadDesign(case.space, (0.8 * share, share), seed).draw_many(first, BATCH)


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

    # Feasible ones to begin with, else most of its time goes into finding any.
    first = grid.nearest(_near_budget(case, seed, 0))
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


RIVALS: dict[str, Callable[[Case, Clock, int], None]] = {
    "evolution (pymoo)": evolution,
    "random": random_search,
    "projected gradient": projected_gradient,
}
