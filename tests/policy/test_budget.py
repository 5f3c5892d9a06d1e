"""Budgets become absolute limits, and unreachable ones are refused before anything is spent."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from seernet.config import BudgetConfig, SpaceConfig
from seernet.errors import BudgetError, ConfigError
from seernet.graph import NetworkGraph
from seernet.policy import Bound, CostModel, SearchSpace, bounds, check_budgets, checked_space

MACS = 384 + 1152 + 512 + 8
SIZE = 4 * (24 + 72 + 32 + 8 + 22)


@pytest.fixture
def cost(hand: NetworkGraph) -> CostModel:
    return CostModel(SearchSpace(hand, SpaceConfig()))


def test_relative_limits_refer_to_the_baseline_at_32_bits(cost: CostModel) -> None:
    config = BudgetConfig(bops_ratio=0.5, macs_ratio=0.25, size_ratio=0.75)
    found = {bound.cost: bound.limit for bound in bounds(config, cost)}
    assert found == {"bops": 512 * MACS, "macs": MACS / 4, "size_bytes": SIZE * 0.75}


def test_absolute_limits_stay(cost: CostModel) -> None:
    assert bounds(BudgetConfig(size_bytes=500.0), cost) == (Bound("size_bytes", 500.0),)


@pytest.mark.parametrize("absolute", [100.0, 1500.0])
def test_of_two_limits_the_tighter_wins(cost: CostModel, absolute: float) -> None:
    (bound,) = bounds(BudgetConfig(macs=absolute, macs_ratio=0.5), cost)
    assert bound == Bound("macs", min(absolute, MACS / 2))


def test_bound_evaluates_its_own_cost(cost: CostModel) -> None:
    dearest = torch.ones(1, cost.space.dimension, dtype=torch.float64)
    assert Bound("macs", 1.0).evaluate(cost, dearest).item() == MACS


def test_unreachable_budget_is_refused_with_the_cheapest_cost_and_the_remedy(
    cost: CostModel,
) -> None:
    # cheapest: 2 and 1 channels; 3*2*16 = 96, 2*9*16 = 288, 2*16 = 32, 2 MACs
    budgets = {"fine": BudgetConfig(macs=418.0), "tiny": BudgetConfig(macs=417.0)}
    with pytest.raises(BudgetError) as caught:
        check_budgets(budgets, cost)
    message = str(caught.value)
    assert "`tiny`: 417 MACs" in message
    assert "418 MACs" in message
    assert "space.max_pruning_ratio" in message
    assert "fine" not in message


def test_every_unreachable_budget_is_named(cost: CostModel) -> None:
    budgets = {"one": BudgetConfig(bops=1.0), "two": BudgetConfig(macs=1.0, size_bytes=1.0)}
    with pytest.raises(BudgetError, match=r"`one`: 1 BOPs.*`two`: 1 MACs.*`two`: 1 bytes"):
        check_budgets(budgets, cost)


def test_checked_space_is_the_space_of_reachable_budgets(hand: NetworkGraph) -> None:
    def params(cost_range: list[float], **limits: float) -> Any:
        return SimpleNamespace(
            space=SpaceConfig(),
            budgets={"one": BudgetConfig(**limits)},
            sample=SimpleNamespace(cost_range=cost_range),
        )

    assert checked_space(hand, params([0.001, 0.9], macs=MACS)).dimension == 2 + 2 + 2
    with pytest.raises(BudgetError):
        checked_space(hand, params([0.001, 0.9], macs=1.0))
    with pytest.raises(ConfigError, match=r"cost_range \[1e-06, 2e-06\] holds no policy"):
        checked_space(hand, params([1e-6, 2e-6], macs=MACS))
