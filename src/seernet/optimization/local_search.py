"""Local search on the grid: use up the slack, never leave the budget.

From a feasible discrete policy, take the best improving move of one coordinate; when there is none,
the best improving swap (one coordinate up, another down). The gain of a swap is first estimated as
the sum of its two parts' gains, which single moves have just measured; only the most promising
swaps are evaluated, so a search over d coordinates costs a few hundred predictions a step instead
of d^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.optimization.grid import Grid, moved
from seernet.optimization.problem import Problem

# Score that the dearest policy gets above the cheapest one beyond the prediction. Accuracy never
# falls with a coordinate, so of equal predictions the dearer one is preferred. It also orders all
# policies strictly, so that the search cannot walk in a circle.
TIE_BREAK = 1e-7
MIN_GAIN = 1e-9
MAX_STEPS = 1000
COST_TOLERANCE = 0.01  # relative; see `_promising_swaps`


@dataclass(frozen=True)
class Search:
    """What a local search works on, and how far each step looks.

    Attributes:
        problem: Objective and costs.
        grid: Levels.
        reach: Levels that one coordinate may move at once.
        swaps: Swaps evaluated when no single move helps.
    """

    problem: Problem
    grid: Grid
    reach: int
    swaps: int

    def value(self, indices: Tensor) -> Tensor:
        """Objective plus tie-break at `n x d` level indices: `n`."""
        u = self.grid.policies(indices)
        return self.problem.objective(u) + TIE_BREAK * u.mean(dim=1)

    def cost(self, indices: Tensor) -> Tensor:
        """Costs at `n x d` level indices: `n x l`."""
        return self.problem.cost(self.grid.policies(indices))


@dataclass(frozen=True)
class Point:
    """A discrete policy on the way: level indices (`d`) and value."""

    indices: Tensor
    value: float


@dataclass(frozen=True)
class Moves:
    """Single moves from one point, with what each brings.

    Attributes:
        coordinate: Which coordinate moves, `m`.
        step: By how many levels, `m`.
        gain: Change of the value, `m`.
        cost: Costs after the move, `m x l`.
    """

    coordinate: Tensor
    step: Tensor
    gain: Tensor
    cost: Tensor


def climb(search: Search, indices: Tensor, budgets: Tensor) -> Point:
    """Improve one discrete policy until no single move and no promising swap helps.

    Args:
        search: What to improve.
        indices: Level indices of a feasible policy, `d`.
        budgets: Upper limits, `l`.

    Returns:
        A feasible policy, not worse than the given one.
    """
    with torch.no_grad():
        point = Point(indices, float(search.value(indices.unsqueeze(0))[0]))
        for _ in range(MAX_STEPS):
            better = _step(search, point, budgets)
            if better is None:
                break
            point = better
    return point


def _step(search: Search, point: Point, budgets: Tensor) -> Point | None:
    """The best improving single move, else the best improving swap, else nothing."""
    coordinate, step = search.grid.single_moves(point.indices, search.reach)
    if len(coordinate) == 0:
        return None
    neighbours = moved(point.indices, (coordinate, step))
    gain = search.value(neighbours) - point.value
    cost = search.cost(neighbours)
    single = _best(neighbours, point.value + gain, cost, point.value, budgets)
    if single is not None:
        return single
    swaps = _promising_swaps(search, point, Moves(coordinate, step, gain, cost), budgets)
    if len(swaps) == 0:
        return None
    return _best(swaps, search.value(swaps), search.cost(swaps), point.value, budgets)


def _best(
    indices: Tensor, values: Tensor, cost: Tensor, current: float, budgets: Tensor
) -> Point | None:
    """The best of `m` policies that fit, if it beats the current value."""
    allowed = values.masked_fill((cost > budgets).any(dim=1), -torch.inf)
    best = int(allowed.argmax())
    if float(allowed[best]) <= current + MIN_GAIN:
        return None
    return Point(indices[best], float(allowed[best]))


def _promising_swaps(search: Search, point: Point, moves: Moves, budgets: Tensor) -> Tensor:
    """Level indices of the swaps with the best estimated gains, `s x d`.

    Gains and costs of the two parts are added up. Costs are products, so an estimate may be off
    either way: swaps a little over the budget are kept for the exact check.
    """
    cost = search.cost(point.indices.unsqueeze(0))
    up, down = moves.step > 0, moves.step < 0
    change = moves.cost - cost
    gain = moves.gain[up].unsqueeze(1) + moves.gain[down]  # ups x downs
    total = cost + change[up].unsqueeze(1) + change[down]  # ups x downs x l
    plausible = (total <= (1 + COST_TOLERANCE) * budgets).all(dim=2)
    plausible &= moves.coordinate[up].unsqueeze(1) != moves.coordinate[down]
    ranked = gain.masked_fill(~plausible, -torch.inf).flatten()
    chosen = ranked.topk(min(search.swaps, len(ranked))).indices
    chosen = chosen[ranked[chosen] > -torch.inf]
    raised, lowered = chosen // int(down.sum()), chosen % int(down.sum())
    return moved(
        point.indices,
        (moves.coordinate[up][raised], moves.step[up][raised]),
        (moves.coordinate[down][lowered], moves.step[down][lowered]),
    )
