"""What is optimized: limits, a pessimistic objective, and the solution's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.errors import BudgetError, PolicyError
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
            faster with more channels), limits still hold, but a budget close to the cheapest policy
            may be refused.
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


def check_reachable(limits: Sequence[Limit], cheapest: Tensor) -> None:
    """Check that the cheapest policy (`d`) meets every limit.

    Raises:
        BudgetError: If there is no limit, or one is below the cheapest policy.
    """
    if not limits:
        raise BudgetError("optimizing needs at least one limit, got none; name one in budgets.")
    for limit in limits:
        reachable = float(limit.cost(cheapest.unsqueeze(0))[0])
        # Written so that a budget that is not a number fails too.
        if not reachable <= limit.budget:
            raise BudgetError(
                f"{limit.name} budget {_pair(limit.budget, reachable, limit.unit)[0]} is below the "
                "cheapest policy this search space allows "
                f"({_pair(limit.budget, reachable, limit.unit)[1]}); "
                "raise the budget or space.max_pruning_ratio."
            )


def _pair(budget: float, reachable: float, unit: str) -> tuple[str, str]:
    """Both values with one SI prefix, and as many digits as tell them apart."""
    prefixes = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    factor, prefix = next(((f, p) for f, p in prefixes if reachable >= 0.1 * f), (1.0, ""))
    for digits in range(2, 17):
        low, high = (f"{value / factor:.{digits}g}" for value in (budget, reachable))
        if low != high:
            break
    return f"{low} {prefix}{unit}", f"{high} {prefix}{unit}"
