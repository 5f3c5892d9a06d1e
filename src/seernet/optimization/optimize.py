"""The best predicted policy inside a budget: climb relaxed, discretize, search locally."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from seernet.config import OptimizeConfig
from seernet.optimization.barrier import Region, Schedule, ascend
from seernet.optimization.grid import Grid
from seernet.optimization.local_search import Point, Search, climb
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

# Relaxed solutions that are discretized; the ascent's other starts end near these or below.
CANDIDATES = 8
SWAPS = 512
# A front of many budgets shares one ascent of about this many starts, and its points improve on
# one another: each starts from the next smaller budget's solution too.
FRONT_STARTS = 200
FRONT_REACH = 1
FRONT_SWAPS = 64


def optimize(
    predict: Predict,
    limits: Sequence[Limit],
    levels: Sequence[Tensor],
    config: OptimizeConfig,
    seed: int,
) -> Solution:
    """Find the discrete policy of highest mean - kappa * std that meets every limit.

    Args:
        predict: Posterior of relaxed policies, `n x d`; differentiable.
        limits: At least one; all must hold.
        levels: For each of `d` coordinates its allowed values, increasing, in [0, 1]. A coordinate
            with one value is fixed.
        config: The `optimize` section.
        seed: Seed of the starts; the same inputs and seed give the same solution.

    Returns:
        A policy that meets every limit exactly, with its posterior and costs.

    Raises:
        BudgetError: If a budget is below the cheapest policy.
        PolicyError: If levels do not increase within [0, 1].

    Source:
        Wang et al. (2023), Learning accurate performance predictors for ultrafast automated model
        compression, sec. 3.3; see `barrier` for deviations.
    """
    grid = Grid.of(check_levels(levels))
    check_reachable(limits, grid.low)
    problem = Problem(predict, tuple(limit.cost for limit in limits), config.kappa)
    budgets = torch.tensor([limit.budget for limit in limits], dtype=torch.float64)
    search = Search(problem, grid, reach=grid.values.shape[1] - 1, swaps=SWAPS)
    with single_thread():
        relaxed = _relax(problem, grid, budgets.expand(config.starts, -1), config, seed)
        candidates = _discretize(search, relaxed, budgets)
        best = max((climb(search, start, budgets) for start in candidates), key=_value_of)
        return _solution(problem, grid, best, limits)


def optimize_many(
    predict: Predict,
    limit: Limit,
    budgets: Tensor,
    levels: Sequence[Tensor],
    config: OptimizeConfig,
    seed: int,
) -> list[Solution]:
    """Optimize for many budgets of one cost at once: the predicted front.

    One ascent serves all budgets, with `config.starts` lowered so that it stays affordable, and
    each budget's local search also starts from the next smaller budget's solution. So the
    objective never falls along the front.

    Args:
        predict: Posterior of relaxed policies, `n x d`; differentiable.
        limit: The cost; its own budget is replaced by each of `budgets`.
        budgets: `k` budgets, in any order.
        levels: As for `optimize`.
        config: The `optimize` section.
        seed: Seed of the starts.

    Returns:
        `k` solutions, in the order of `budgets`.

    Raises:
        BudgetError: If a budget is below the cheapest policy.
        PolicyError: If levels do not increase within [0, 1].
    """
    grid = Grid.of(check_levels(levels))
    limits = [replace(limit, budget=float(budget)) for budget in budgets]
    if not limits:
        return []
    check_reachable(limits, grid.low)
    problem = Problem(predict, (limit.cost,), config.kappa)
    each = max(1, min(config.starts, FRONT_STARTS // len(limits)))
    amounts = budgets.detach().double().unsqueeze(1)  # k x 1
    search = Search(problem, grid, reach=FRONT_REACH, swaps=FRONT_SWAPS)
    solutions: dict[int, Solution] = {}
    previous: Point | None = None
    with single_thread():
        relaxed = _relax(problem, grid, amounts.repeat_interleave(each, dim=0), config, seed)
        for i in budgets.argsort().tolist():
            starts = _discretize(search, relaxed[i * each : (i + 1) * each], amounts[i])[:1]
            if previous is not None:
                starts.append(previous.indices)
            previous = max((climb(search, start, amounts[i]) for start in starts), key=_value_of)
            solutions[i] = _solution(problem, grid, previous, [limits[i]])
    return [solutions[i] for i in range(len(limits))]


def _relax(
    problem: Problem, grid: Grid, budgets: Tensor, config: OptimizeConfig, seed: int
) -> Tensor:
    """Climb from one start for each row of budgets (`n x l`): `n x d` relaxed policies."""
    with torch.no_grad():
        cheapest = problem.cost(grid.low.unsqueeze(0))
        generator = torch.Generator().manual_seed(seed)
        points = draw(len(budgets), grid.low, grid.high, generator)
        # Neighbouring rows share a budget, and neighbouring strata a level: deal them out.
        points = points[torch.randperm(len(points), generator=generator)]
        # A budget of exactly the cheapest cost has no interior; its policy needs no ascent.
        interior = (cheapest < budgets).all(dim=1)
        result = grid.low.repeat(len(budgets), 1)
    if bool(interior.any()):
        starts = pull_inside(problem, points[interior], grid.low, budgets[interior])
        region = Region(grid.low, grid.high, budgets[interior])
        schedule = Schedule(config.iterations, config.learning_rate, config.barrier_weight)
        result[interior] = ascend(problem, starts, region, schedule)
    return result


def _discretize(search: Search, relaxed: Tensor, budgets: Tensor) -> list[Tensor]:
    """Distinct feasible level indices near the best relaxed policies, best first.

    Each is rounded to the nearest levels where that fits, else down, which always does.
    """
    with torch.no_grad():
        order = search.problem.objective(relaxed).argsort(descending=True, stable=True)
        top = relaxed[order[: 4 * CANDIDATES]]
        nearest, floor = search.grid.nearest(top), search.grid.floor(top)
        fits = (search.cost(nearest) <= budgets).all(dim=1, keepdim=True)
        rounded = torch.where(fits, nearest, floor)
        rounded = rounded[search.value(rounded).argsort(descending=True, stable=True)]
    distinct = {tuple(row): None for row in rounded.tolist()}
    return [torch.tensor(row) for row in list(distinct)[:CANDIDATES]]


def _value_of(point: Point) -> float:
    return point.value


def _solution(problem: Problem, grid: Grid, point: Point, limits: Sequence[Limit]) -> Solution:
    u = grid.policies(point.indices.unsqueeze(0))
    with torch.no_grad():
        mean, variance = problem.predict(u).bounded()
        costs = problem.cost(u)[0]
    return Solution(
        u=u[0],
        mean=float(mean[0]),
        std=float(variance[0].clamp_min(0).sqrt()),
        costs={limit.name: float(cost) for limit, cost in zip(limits, costs, strict=True)},
    )
