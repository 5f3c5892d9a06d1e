"""What is optimized: limits, a pessimistic objective, and the solution's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.errors import BudgetError, PolicyError
from seernet.policy.cheapest import cheapest, told_apart
from seernet.predictor import Posterior

Predict = Callable[[Tensor], Posterior]
Cost = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Limit:
    """An upper limit on one cost.

    Attributes:
        name: Key of the cost, e.g. `bops`.
        unit: Unit for messages, e.g. `BOPs`.
        cost: Maps relaxed policies, `n x d`, to `n` costs; differentiable.
        budget: Largest allowed cost, in `unit`.
        rises: Whether the cost never falls when a coordinate rises. Where it may (some kernels are
            faster with more channels, or bits), limits still hold, but a budget that only few
            policies meet may be refused.
    """

    name: str
    unit: str
    cost: Cost
    budget: float
    rises: bool = True


@dataclass(frozen=True)
class Solution:
    """A discrete policy that meets every limit.

    Attributes:
        u: `d` coordinates, each on one of its levels.
        mean: Posterior mean of its score.
        std: Posterior standard deviation of its score.
        costs: Its cost in each limit's unit, by the limit's name.
    """

    u: Tensor
    mean: float
    std: float
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Problem:
    """Maximize mean - kappa * std subject to costs.

    Attributes:
        predict: Posterior of relaxed policies, differentiable.
        costs: One function for each of `l` limits.
        kappa: Standard deviations subtracted from the mean.
        rises: Whether no cost falls when a coordinate rises.
    """

    predict: Predict
    costs: tuple[Cost, ...]
    kappa: float
    rises: bool = True

    def objective(self, u: Tensor) -> Tensor:
        """Pessimistic scores of `n x d` policies: `n`."""
        mean, variance = self.predict(u)
        # The square root's slope is infinite at zero; a certain prediction has slope zero.
        return mean - self.kappa * variance.clamp_min(1e-18).sqrt()

    def cost(self, u: Tensor) -> Tensor:
        """Costs of `n x d` policies: `n x l`."""
        return torch.stack([cost(u) for cost in self.costs], dim=1)

    def fits(self, u: Tensor, budgets: Tensor) -> Tensor:
        """Whether each of `n` policies meets all its limits; `budgets` is `n x l` or `l`."""
        return (self.cost(u) <= budgets).all(dim=1)


def check_levels(levels: Sequence[Tensor]) -> list[Tensor]:
    """Return the levels as float64.

    Raises:
        PolicyError: If a coordinate's levels are none, outside [0, 1], or do not increase.
    """
    if not levels:
        raise PolicyError("a policy needs at least one coordinate, got none; widen space.")
    checked = [level.detach().double() for level in levels]
    for i, level in enumerate(checked):
        increasing = level.dim() == 1 and len(level) > 0 and bool((level.diff() > 0).all())
        if not increasing or level[0] < 0 or level[-1] > 1:
            raise PolicyError(
                f"levels must increase within [0, 1], coordinate {i} has {level.tolist()}; "
                "check the search space."
            )
    return checked


def check_reachable(limits: Sequence[Limit], levels: Sequence[Tensor]) -> Tensor:
    """Check that some policy meets all limits.

    Args:
        limits: At least one.
        levels: For each of `d` coordinates its allowed values, increasing.

    Returns:
        The policy that takes the least of its budgets, `d`: the cheapest. Where a cost may fall
        when a coordinate rises, it is the cheapest that was found.

    Raises:
        BudgetError: If there is no limit, one is below the cheapest policy, or no policy was found
            that meets all.
    """
    if not limits:
        raise BudgetError("optimizing needs at least one limit, got none; name one in budgets.")
    corner = torch.stack([level[0] for level in levels])
    least: dict[str, float] = {}
    for limit in limits:
        if limit.name not in least:
            point = corner if limit.rises else cheapest(limit.cost, levels)
            least[limit.name] = float(limit.cost(point[None])[0])
        # Written so that a budget that is not a number fails too.
        if not least[limit.name] <= limit.budget:
            budget, reachable = told_apart(limit.budget, least[limit.name])
            policy = "cheapest policy" if limit.rises else "cheapest policy found that"
            raise BudgetError(
                f"{limit.name} budget {budget} {limit.unit} is below the {policy} this search "
                f"space allows ({reachable} {limit.unit}); raise the budget or "
                "space.max_pruning_ratio."
            )
    if all(limit.rises for limit in limits):
        return corner

    def load(u: Tensor) -> Tensor:
        return torch.stack([limit.cost(u) / limit.budget for limit in limits]).amax(dim=0)

    point = cheapest(load, levels)
    if float(load(point[None])[0]) > 1.0:
        wanted = ", ".join(f"{limit.name} {limit.budget:.6g} {limit.unit}" for limit in limits)
        raise BudgetError(
            f"no policy was found that meets all limits of a budget ({wanted}) at once; raise one "
            "of them, or space.max_pruning_ratio."
        )
    return point
