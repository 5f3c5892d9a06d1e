"""Budgets: limits of the parameters file turned into absolute limits on a cost model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.config import BudgetConfig, Params
from seernet.errors import BudgetError, ConfigError
from seernet.graph import NetworkGraph
from seernet.policy.cost import CostModel
from seernet.policy.space import SearchSpace

UNITS = {"bops": ("MBOPs", 1e6), "macs": ("MMACs", 1e6), "size_bytes": ("kB", 1e3)}
_BASE_UNITS = {"bops": "BOPs", "macs": "MACs", "size_bytes": "bytes"}


@dataclass(frozen=True)
class Bound:
    """An upper limit on one cost.

    Attributes:
        cost: Field of `Costs`: `bops`, `macs` or `size_bytes`.
        limit: The limit, in the cost's base unit.
    """

    cost: str
    limit: float

    @property
    def unit(self) -> str:
        """Base unit of the cost."""
        return _BASE_UNITS[self.cost]

    def evaluate(self, model: CostModel, u: Tensor) -> Tensor:
        """The bounded cost of `n x d` relaxed policies."""
        value: Tensor = getattr(model(u), self.cost)
        return value


def bounds(config: BudgetConfig, model: CostModel) -> tuple[Bound, ...]:
    """All limits of one budget, in absolute terms; of two on the same cost, the tighter."""
    baseline = model.baseline()
    found: dict[str, float] = {}
    for key, value in config.model_dump(exclude_none=True).items():
        relative = key.endswith("_ratio")
        cost = {"size": "size_bytes"}.get(key.removesuffix("_ratio"), key.removesuffix("_ratio"))
        limit = value * float(getattr(baseline, cost)) if relative else float(value)
        found[cost] = min(limit, found.get(cost, limit))
    return tuple(Bound(cost, limit) for cost, limit in sorted(found.items()))


def checked_space(graph: NetworkGraph, params: Params) -> SearchSpace:
    """The search space, once it is sure that budgets and cost range can be met in it.

    Raises:
        BudgetError: If a budget is below the cheapest policy; see `check_budgets`.
        ConfigError: If `sample.cost_range` holds no policy.
    """
    space = SearchSpace(graph, params.space)
    model = CostModel(space)
    check_budgets(params.budgets, model)
    low, high = params.sample.cost_range
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, space.dimension)
    cheapest, dearest = (model(ends).bops / model.baseline().bops).tolist()
    if high <= cheapest or low >= dearest:
        raise ConfigError(
            f"sample.cost_range [{low}, {high}] holds no policy of the search space, whose costs "
            f"run from {cheapest:.4g} to {dearest:.4g} of the baseline; widen it."
        )
    return space


def check_budgets(budgets: Mapping[str, BudgetConfig], model: CostModel) -> None:
    """Refuse budgets that no policy of the space meets, before anything is spent on them.

    Raises:
        BudgetError: Names every such budget, and the cheapest reachable cost.
    """
    cheapest = torch.zeros(1, model.space.dimension, dtype=torch.float64)
    problems = []
    for name, config in budgets.items():
        for bound in bounds(config, model):
            reachable = float(bound.evaluate(model, cheapest))
            if reachable > bound.limit:
                unit, scale = UNITS[bound.cost]
                whole = float(getattr(model.baseline(), bound.cost))
                problems.append(
                    f"budget `{name}`: {bound.limit / scale:.6g} {unit} ({bound.limit / whole:.4g} "
                    "of the baseline) is below the cheapest policy this search space allows "
                    f"({reachable / scale:.6g} {unit}, {reachable / whole:.4g} of the baseline)"
                )
    if problems:
        raise BudgetError(
            "; ".join(problems) + "; raise the budget or space.max_pruning_ratio, or allow fewer "
            "bits (space.weight_bits, space.act_bits, space.edge_bits)."
        )
