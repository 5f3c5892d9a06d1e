"""The best predicted policy inside a budget: climb relaxed, discretize, search locally.

The local search begins at the best relaxed policies and, if any are given, at the best known ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from seernet.config import OptimizeConfig
from seernet.optimization.barrier import Region, Schedule, ascend
from seernet.optimization.grid import Grid
from seernet.optimization.local_search import Search, oscillate
from seernet.optimization.problem import (
    Limit,
    Predict,
    Problem,
    Solution,
    check_levels,
    check_reachable,
)
from seernet.optimization.starts import draw, pull_inside
from seernet.predictor import single_thread

CANDIDATES = 8  # relaxed solutions from which the local search begins
PATIENCE = 40  # its steps without a better policy
# A front of many budgets shares one ascent of about this many starts. Its searches are more
# numerous and less patient, and help one another.
FRONT_STARTS = 200
FRONT_PATIENCE = 25


def optimize(
    predict: Predict,
    limits: Sequence[Limit],
    levels: Sequence[Tensor],
    config: OptimizeConfig,
    seed: int,
    known: Tensor | None = None,
) -> Solution:
    """Find the discrete policy of highest mean - kappa * std that meets every limit.

    Args:
        predict: Posterior of relaxed policies, `n x d`; differentiable.
        limits: At least one; all must hold.
        levels: For each of `d` coordinates its allowed values, increasing, in [0, 1]. A coordinate
            with one value is fixed.
        config: The `optimize` section.
        seed: Seed of the starts; the same inputs and seed give the same solution.
        known: Discrete policies, `m x d`, whose neighbourhoods are searched too. Variance is least
            at measured policies: each is a hill that no ascent from afar may find.

    Returns:
        A policy that meets every limit exactly, with its posterior and costs.

    Raises:
        BudgetError: If a budget is below the cheapest policy.
        PolicyError: If levels do not increase within [0, 1].

    Source:
        Wang et al. (2023), Learning accurate performance predictors for ultrafast automated model
        compression, sec. 3.3; see `barrier` for deviations.
    """
    budgets = torch.tensor([[limit.budget for limit in limits]], dtype=torch.float64)
    costs = tuple(limit.cost for limit in limits)
    levels = check_levels(levels)
    grid, cheapest = Grid.of(levels), check_reachable(limits, levels)
    problem = Problem(predict, costs, config.kappa, all(limit.rises for limit in limits))
    with single_thread():
        rows = budgets.expand(config.starts, -1)
        relaxed = _relax(problem, grid, cheapest, rows, config, seed)
        starts = relaxed[_order(problem, relaxed)[:CANDIDATES]]
        if known is not None:
            starts = torch.cat([starts, _best_known(problem, known.double(), budgets, CANDIDATES)])
        search = Search(problem, grid, budgets.expand(len(starts), -1), cheapest)
        found, values = oscillate(search, grid.floor(starts), grid.nearest(starts), PATIENCE, seed)
        return _solutions(problem, grid, found[values.argmax()][None], [limits])[0]


def optimize_many(
    predict: Predict,
    limit: Limit,
    budgets: Tensor,
    levels: Sequence[Tensor],
    config: OptimizeConfig,
    seed: int,
    *,
    known: Tensor | None = None,
) -> list[Solution]:
    """Optimize for many budgets of one cost at once: the predicted front.

    One ascent serves all budgets, with `config.starts` lowered so that it stays affordable. Then
    each budget's local search begins anew from the next larger budget's solution, and takes over
    what a smaller one has found: so the objective never falls along the front.

    Args:
        predict: Posterior of relaxed policies, `n x d`; differentiable.
        limit: The cost; its own budget is replaced by each of `budgets`.
        budgets: `k` budgets, in any order.
        levels: As for `optimize`.
        config: The `optimize` section.
        seed: Seed of the starts.
        known: As for `optimize`.

    Returns:
        `k` solutions, in the order of `budgets`.

    Raises:
        BudgetError: If a budget is below the cheapest policy.
        PolicyError: If levels do not increase within [0, 1].
    """
    levels = check_levels(levels)
    limits = [replace(limit, budget=float(budget)) for budget in budgets]
    if not limits:
        return []
    grid, cheapest = Grid.of(levels), check_reachable(limits, levels)
    problem = Problem(predict, (limit.cost,), config.kappa, limit.rises)
    each = max(1, min(config.starts, FRONT_STARTS // len(limits)))
    amounts = budgets.detach().double().unsqueeze(1)  # k x 1
    with single_thread():
        rows = amounts.repeat_interleave(each, dim=0)
        relaxed = _relax(problem, grid, cheapest, rows, config, seed)
        order = [
            _order(problem, part)[0] + i * each for i, part in enumerate(torch.split(relaxed, each))
        ]
        relaxed = relaxed[torch.stack(order)]
        search = Search(problem, grid, amounts, cheapest)
        found, _ = oscillate(
            search, grid.floor(relaxed), grid.nearest(relaxed), FRONT_PATIENCE, seed
        )
        if known is not None:
            starts = torch.cat(
                [_best_known(problem, known.double(), amount[None], 1) for amount in amounts]
            )
            found, _ = oscillate(search, found, grid.nearest(starts), FRONT_PATIENCE, seed)
        rising = amounts[:, 0].argsort()
        larger = rising[(rising.argsort() + 1).clamp(max=len(rising) - 1)]  # of each budget
        found, values = oscillate(search, found, found[larger], FRONT_PATIENCE, seed + 1)
        costs = problem.cost(grid.policies(found))
        fits = amounts >= costs.T  # k x k: a budget (row), what was found for another (column)
        best = values.expand(len(found), -1).masked_fill(~fits, -torch.inf).argmax(dim=1)
        return _solutions(problem, grid, found[best], [[limit] for limit in limits])


def _order(problem: Problem, points: Tensor) -> Tensor:
    """Indices of `n x d` points, the best first."""
    with torch.no_grad():
        return problem.objective(points).argsort(descending=True, stable=True)


def _best_known(problem: Problem, known: Tensor, budgets: Tensor, count: int) -> Tensor:
    """The best of `m x d` policies within budgets, `1 x l`; the cheapest where none is, `k x d`."""
    inside = problem.fits(known, budgets)
    if not bool(inside.any()):
        load = (problem.cost(known) / budgets).amax(dim=1)
        return known[load.argsort(stable=True)[:count]]
    known = known[inside]
    return known[_order(problem, known)[:count]]


def _relax(
    problem: Problem,
    grid: Grid,
    cheapest: Tensor,
    budgets: Tensor,
    config: OptimizeConfig,
    seed: int,
) -> Tensor:
    """Climb from one start for each row of budgets (`n x l`): `n x d` relaxed policies."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        points = draw(len(budgets), grid.low, grid.high, generator)
        # Neighbouring rows share a budget, and neighbouring strata a level: deal them out.
        points = points[torch.randperm(len(points), generator=generator)]
        # A budget of exactly the cheapest cost has no interior; its policy needs no ascent.
        interior = (problem.cost(cheapest[None]) < budgets).all(dim=1)
        result = cheapest.repeat(len(budgets), 1)
    if bool(interior.any()):
        starts = pull_inside(problem, points[interior], cheapest, budgets[interior])
        region = Region(grid.low, grid.high, budgets[interior])
        schedule = Schedule(config.iterations, config.learning_rate, config.barrier_weight)
        result[interior] = ascend(problem, starts, region, schedule)
    return result


def _solutions(
    problem: Problem, grid: Grid, indices: Tensor, limits: Sequence[Sequence[Limit]]
) -> list[Solution]:
    """Solutions at `k x d` level indices, each under its own limits."""
    u = grid.policies(indices)
    with torch.no_grad():
        mean, variance = problem.predict(u).bounded()
        std = variance.clamp_min(0).sqrt()
        costs = problem.cost(u).tolist()
    return [
        Solution(
            u[i],
            float(mean[i]),
            float(std[i]),
            {limit.name: cost for limit, cost in zip(each, costs[i], strict=True)},
        )
        for i, each in enumerate(limits)
    ]
