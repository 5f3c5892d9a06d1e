"""Budgets: limits of the parameters file turned into absolute limits on a cost model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from seernet.config import BudgetConfig, Params
from seernet.errors import BudgetError, ConfigError
from seernet.graph import NetworkGraph
from seernet.policy.cheapest import cheapest, told_apart
from seernet.policy.cost import NO_TABLE, CostModel
from seernet.policy.latency import LatencyTable
from seernet.policy.space import SearchSpace

LATENCY = "latency_ms"
UNITS = {"bops": "BOPs", "macs": "MACs", "size_bytes": "bytes", LATENCY: "ms"}
_RATIOS = {
    "bops_ratio": "bops",
    "macs_ratio": "macs",
    "size_ratio": "size_bytes",
    "latency_ratio": LATENCY,
}


@dataclass(frozen=True)
class Bound:
    """An upper limit on one cost.

    Attributes:
        cost: Field of `Costs`: `bops`, `macs`, `size_bytes` or `latency_ms`.
        limit: The limit, in the cost's base unit.
    """

    cost: str
    limit: float

    @property
    def unit(self) -> str:
        """Base unit of the cost."""
        return UNITS[self.cost]

    @property
    def rises(self) -> bool:
        """Whether the cost never falls when a coordinate rises."""
        return self.cost != LATENCY

    def evaluate(self, model: CostModel, u: Tensor) -> Tensor:
        """The bounded cost of `n x d` relaxed policies."""
        value: Tensor = getattr(model(u), self.cost)
        return value

    def least(self, model: CostModel) -> float:
        """The bounded cost of the cheapest policy; where the cost may fall, that was found."""
        cost = partial(self.evaluate, model)
        corner = torch.zeros(model.space.dimension, dtype=torch.float64)
        return float(cost((corner if self.rises else cheapest(cost, model.space.levels))[None]))


def bounds(config: BudgetConfig, model: CostModel) -> tuple[Bound, ...]:
    """All limits of one budget, in absolute terms; of two on the same cost, the tighter.

    Raises:
        BudgetError: If latency is limited, and the cost model has no table of it.
    """
    found: dict[str, float] = {}
    for key, value in config.model_dump(exclude_none=True).items():
        cost = _RATIOS.get(key, key)
        if cost == LATENCY and model.latency is None:
            raise BudgetError(NO_TABLE)
        limit = float(value) * (baseline_cost(model, cost) if key in _RATIOS else 1.0)
        found[cost] = min(limit, found.get(cost, limit))
    return tuple(Bound(cost, limit) for cost, limit in sorted(found.items()))


def without_latency(config: BudgetConfig) -> BudgetConfig:
    """A budget's other limits."""
    return config.model_copy(update={"latency_ms": None, "latency_ratio": None})


def baseline_cost(model: CostModel, cost: str) -> float:
    """A cost of the uncompressed network at 32 bits, in its base unit."""
    if cost != LATENCY:
        return float(getattr(model.baseline(), cost))
    return model.latency.baseline_ms if model.latency is not None else float("nan")


def checked_space(
    graph: NetworkGraph, params: Params, latency: LatencyTable | None = None
) -> SearchSpace:
    """The search space, once it is sure that budgets and cost range can be met in it.

    Args:
        graph: The traced network.
        params: All parameters.
        latency: Its latency table; without one, limits on latency are not checked.

    Raises:
        BudgetError: If a budget is below the cheapest policy; see `check_budgets`.
        ConfigError: If `sample.cost_range` holds no policy.
    """
    space = SearchSpace(graph, params.space)
    model = CostModel(space, latency)
    check_budgets(params.budgets, model)
    low, high = params.sample.cost_range
    cheapest, dearest = (model(space.ends).bops / model.baseline().bops).tolist()
    if high <= cheapest or low >= dearest:
        raise ConfigError(
            f"sample.cost_range [{low}, {high}] holds no policy of the search space, whose costs "
            f"run from {cheapest:.4g} to {dearest:.4g} of the baseline; widen it."
        )
    return space


def check_budgets(budgets: Mapping[str, BudgetConfig], model: CostModel) -> None:
    """Refuse budgets that no policy of the space meets, before anything is spent on them.

    Limits on latency are left out as long as there is no table of it.

    Raises:
        BudgetError: Names every such budget, and the cheapest reachable cost (of latency, which may
            fall when channels or bits are added, the cheapest found).
    """
    problems = []
    for name, config in budgets.items():
        if model.latency is None:
            config = without_latency(config)
        for bound in bounds(config, model):
            least = bound.least(model)
            if least > bound.limit:
                limit, reachable = told_apart(bound.limit, least)
                whole = baseline_cost(model, bound.cost)
                policy = "cheapest policy" if bound.rises else "fastest policy found that"
                problems.append(
                    f"budget `{name}`: {limit} {bound.unit} ({bound.limit / whole:.4g} of the "
                    f"baseline) is below the {policy} this search space allows "
                    f"({reachable} {bound.unit}, {least / whole:.4g} of the baseline)"
                )
    if problems:
        raise BudgetError(
            "; ".join(problems) + "; raise the budget or space.max_pruning_ratio, or allow fewer "
            "bits (space.weight_bits, space.act_bits, space.edge_bits)."
        )
