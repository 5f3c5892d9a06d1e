"""Budgets: limits of the parameters file turned into absolute limits on a cost model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.config import BudgetConfig, SpaceConfig
from seernet.errors import BudgetError
from seernet.graph import NetworkGraph
from seernet.policy.cost import CostModel
from seernet.policy.space import SearchSpace

UNITS = {"bops": ("GBOPs", 1e9), "macs": ("MMACs", 1e6), "size_bytes": ("kB", 1e3)}
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


def checked_space(
    graph: NetworkGraph, config: SpaceConfig, budgets: Mapping[str, BudgetConfig]
) -> SearchSpace:
    """The search space, once it is sure that every budget can be met in it; see `check_budgets`."""
    space = SearchSpace(graph, config)
    check_budgets(budgets, CostModel(space))
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
                problems.append(
                    f"budget `{name}`: {bound.limit / scale:.6g} {unit} is below the cheapest "
                    f"policy this search space allows ({reachable / scale:.6g} {unit}, "
                    f"{reachable / float(getattr(model.baseline(), bound.cost)):.4g} of the "
                    "baseline)"
                )
    if problems:
        raise BudgetError(
            "; ".join(problems) + "; raise the budget or space.max_pruning_ratio, or allow fewer "
            "bits (space.weight_bits, space.act_bits, space.edge_bits)."
        )
