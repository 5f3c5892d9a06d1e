"""Starting points: spread over the box, then pulled strictly inside the budget."""

from __future__ import annotations

import torch
from torch import Tensor

from seernet.optimization.problem import Problem

BISECTIONS = 40
# Largest share of a budget that a start may use: the barrier is infinite at the budget itself.
MAX_SHARE = 0.98


def draw(count: int, low: Tensor, high: Tensor, generator: torch.Generator) -> Tensor:
    """Draw points of the box, `count x d`, that spread over cost.

    Independent uniform coordinates would all cost about the same, since sums concentrate; so each
    point first draws a level of its own, stratified over [0, 1], and how far its coordinates
    scatter around that level.

    Args:
        count: Number of points.
        low: Lower corner of the box, `d`.
        high: Upper corner, `d`.
        generator: Source of randomness.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=low.dtype)

    strata = torch.arange(count, dtype=low.dtype).unsqueeze(1)
    level = (strata + uniform(count, 1)) / count
    scatter = uniform(count, 1) * (2 * uniform(count, len(low)) - 1)
    return low + (high - low) * (level + scatter).clamp(0, 1)


def pull_inside(problem: Problem, points: Tensor, cheapest: Tensor, budgets: Tensor) -> Tensor:
    """Move points towards the cheapest policy until all costs are strictly below their budgets.

    Bisection finds a fraction of the way from that policy that still fits: the dearest one, where
    costs never fall with a coordinate.

    Args:
        problem: Whose costs count.
        points: `n x d`.
        cheapest: The cheapest policy, `d`; strictly cheaper than every budget.
        budgets: `n x l`.

    Returns:
        `n x d` points, strictly feasible.
    """
    floor = problem.cost(cheapest.unsqueeze(0))
    # A share of the room above the cheapest policy, so that tight budgets leave room too.
    target = floor + MAX_SHARE * (budgets - floor)
    feasible = torch.zeros(len(points), 1, dtype=points.dtype)
    infeasible = torch.ones_like(feasible)
    whole = problem.fits(points, target).unsqueeze(1)
    for _ in range(BISECTIONS):
        middle = (feasible + infeasible) / 2
        fits = problem.fits(cheapest + middle * (points - cheapest), target).unsqueeze(1)
        feasible = torch.where(fits, middle, feasible)
        infeasible = torch.where(fits, infeasible, middle)
    return torch.where(whole, points, cheapest + feasible * (points - cheapest))
