"""Local search on the grid: strategic oscillation across the budget.

A search that never leaves the budget gets stuck at it: every way to something better leads through
a policy that is a little too dear, or gives up something first. So this one crosses the budget
again and again (Glover & Laguna 1997, Tabu search, sec. 4.4). Inside it, the coordinate rises that
gains most for each share of the budget that it takes; outside it, the one falls that loses least
for each share that it frees. A coordinate that has moved rests for some steps, which keeps the
search from undoing what it just did, unless its move leads to the best policy so far. All searches,
of one budget or of many, go in step, so that each step is one call of the predictor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.optimization.grid import Grid
from seernet.optimization.problem import Problem

# Score that the dearest policy gets above the cheapest one beyond the prediction. Accuracy never
# falls with a coordinate, so of equal predictions the dearer one is preferred.
TIE_BREAK = 1e-7
MIN_GAIN = 1e-9
REST = (3, 10)  # steps that a moved coordinate rests: drawn from 3 to 9
MAX_STEPS = 1000
FREE = 1e12  # more than a gain for any share of the budget
CHUNK = 512  # policies that are predicted at once: what stays in a core's cache


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        problem: Objective and costs.
        grid: Levels.
        budgets: Each search's budgets, `n x l`, positive.
        cheapest: A policy inside all of them, `d`.
    """

    problem: Problem
    grid: Grid
    budgets: Tensor
    cheapest: Tensor

    def look(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Values and loads of `m x d` points for the searches `rows` (`m`), `m` each.

        The value is the objective plus a tie-break; the load, the largest cost over budget.
        """
        values, costs = [], []
        for u in torch.split(points, CHUNK):
            values.append(self.problem.objective(u) + TIE_BREAK * u.mean(dim=1))
            costs.append(self.problem.cost(u))
        return torch.cat(values), (torch.cat(costs) / self.budgets[rows]).amax(dim=1)


@dataclass
class State:
    """Where `n` searches stand.

    Attributes:
        now: Level indices, `n x d`.
        value: Their values, `n`.
        load: Their loads, `n`; at most 1 inside the budget.
        best: The best policies found inside the budget, `n x d`.
        best_value: Their values, `n`.
        rests: Step until which each coordinate rests, `n x d`.
        found: Step of the last improvement, `n`.
    """

    now: Tensor
    value: Tensor
    load: Tensor
    best: Tensor
    best_value: Tensor
    rests: Tensor
    found: Tensor


def oscillate(
    search: Search, inside: Tensor, starts: Tensor, patience: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Search from `n` policies, each within its own budget.

    Args:
        search: What is searched.
        inside: Level indices, `n x d`, to fall back on; where they exceed the budget, the cheapest
            policy takes their place.
        starts: Level indices to start from, `n x d`; they may exceed the budget.
        patience: Steps without a better policy after which a search ends.
        seed: Seed of how long coordinates rest.

    Returns:
        Feasible level indices, `n x d`, none worse than `inside`; and their values, `n`.
    """
    generator = torch.Generator().manual_seed(seed)
    everyone = torch.arange(len(starts))
    with torch.no_grad():
        value, load = search.look(search.grid.policies(starts), everyone)
        _, inside_load = search.look(search.grid.policies(inside), everyone)
        cheapest = search.grid.nearest(search.cheapest[None])
        inside = torch.where(inside_load[:, None] <= 1.0, inside, cheapest)
        best_value, _ = search.look(search.grid.policies(inside), everyone)
        state = State(
            now=starts.clone(),
            value=value,
            load=load,
            best=inside.clone(),
            best_value=best_value,
            rests=torch.zeros_like(starts),
            found=torch.zeros(len(starts), dtype=torch.long),
        )
        _keep_best(state, everyone, 0)
        active = everyone
        for step in range(1, MAX_STEPS + 1):
            rest = torch.randint(*REST, (len(starts),), generator=generator)
            _step(search, state, active, step, rest)
            active = active[step - state.found[active] < patience]
            if len(active) == 0:
                break
    return state.best, state.best_value


def _step(search: Search, state: State, active: Tensor, step: int, rest: Tensor) -> None:
    """Move one coordinate of each active search (`a` indices), if one may move.

    By one level; where costs may fall, by any number, for what lies between two cheap levels may be
    dear.
    """
    grid, rises = search.grid, search.problem.rises
    hops = torch.arange(1, 2 if rises else grid.values.shape[1])  # h
    inside = state.load[active] <= 1.0  # a
    target = state.now[active][:, :, None] + torch.where(inside, 1, -1)[:, None, None] * hops
    row, coordinate, hop = ((target >= 0) & (target < grid.sizes[:, None])).nonzero(as_tuple=True)
    owner = active[row]  # m moves
    if len(row) == 0:
        return
    points = grid.policies(state.now[active])[row]
    points[torch.arange(len(row)), coordinate] = grid.values[
        coordinate, target[row, coordinate, hop]
    ]
    value, load = search.look(points, owner)
    better = (load <= 1.0) & (value > state.best_value[owner] + MIN_GAIN)
    gain, taken = value - state.value[owner], load - state.load[owner]
    density = gain / taken.abs().clamp_min(1e-12)
    if not rises:  # a gain that frees load comes first; what frees none leads nowhere
        density = torch.where(inside[row] & (taken <= 0.0) & (gain > 0.0), FREE + gain, density)
        density = torch.where(~inside[row] & (taken >= 0.0), gain - FREE, density)
    density[state.rests[owner, coordinate] >= step] = -torch.inf

    def table(entries: Tensor) -> Tensor:
        full = torch.full(target.shape, -torch.inf, dtype=value.dtype)
        full[row, coordinate, hop] = entries
        return full.flatten(1)

    improving, ranked = table(value.masked_fill(~better, -torch.inf)), table(density)
    improves = improving.amax(dim=1) > -torch.inf
    chosen = torch.where(improves, improving.argmax(dim=1), ranked.argmax(dim=1))
    moves = improves | (ranked.amax(dim=1) > -torch.inf)
    (which,) = moves.nonzero(as_tuple=True)
    mover, column = active[which], chosen[which] // len(hops)
    state.now[mover, column] = target.flatten(1)[which, chosen[which]]
    state.value[mover] = table(value)[which, chosen[which]]
    state.load[mover] = table(load)[which, chosen[which]]
    state.rests[mover, column] = step + rest[mover]
    _keep_best(state, mover, step)


def _keep_best(state: State, rows: Tensor, step: int) -> None:
    """Note which of some searches stand at the best policy they have seen inside the budget."""
    better = (state.load[rows] <= 1.0) & (state.value[rows] > state.best_value[rows] + MIN_GAIN)
    rows = rows[better]
    state.best[rows], state.best_value[rows] = state.now[rows], state.value[rows]
    state.found[rows] = step
