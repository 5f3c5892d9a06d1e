"""Optimization against known constrained optima: closed form, brute force, integer programming."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seernet.config import OptimizeConfig
from seernet.errors import BudgetError, PolicyError
from seernet.optimization import Limit, optimize, optimize_many
from seernet.optimization.barrier import Region, Schedule, ascend
from seernet.optimization.problem import Predict, Problem
from seernet.optimization.starts import draw, pull_inside
from seernet.predictor import Posterior

CONFIG = OptimizeConfig(starts=16, iterations=60, kappa=0.0)


def certain(score: Predict | object) -> Predict:
    """A predictor without doubt whose mean is the given function."""

    def predict(u: Tensor) -> Posterior:
        mean = score(u)  # type: ignore[operator]
        return Posterior(mean, torch.zeros_like(mean))

    return predict


def linear_limit(prices: Tensor, budget: float, name: str = "bops") -> Limit:
    return Limit(name, "BOPs", lambda u: u @ prices, budget)


def random_problem(d: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(d, generator=generator, dtype=torch.float64) ** 2
    prices = torch.rand(d, generator=generator, dtype=torch.float64) + 0.1
    return values / values.sum(), prices


def test_relaxed_ascent_finds_the_water_filling_optimum() -> None:
    # maximize sum_i w_i log(u_i + 1) s.t. sum u_i <= 1 with w = (2, 1, 1)/4. Stationarity
    # w_i / (u_i + 1) = nu: u_1 = 1, u_2 = u_3 = 0 gives 0.25 for all three.
    weights = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    prices = torch.ones(3, dtype=torch.float64)
    problem = Problem(certain(lambda u: torch.log1p(u) @ weights), (lambda u: u @ prices,), 0.0)
    low, high = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    budgets = torch.ones(16, 1, dtype=torch.float64)
    starts = pull_inside(
        problem, draw(16, low, high, torch.Generator().manual_seed(0)), low, budgets
    )
    end = ascend(problem, starts, Region(low, high, budgets), Schedule(300, 0.05, 0.02))
    expected = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(16, 3)
    torch.testing.assert_close(end, expected, rtol=0, atol=0.02)
    assert (end.sum(dim=1) < 1).all()


def test_ascent_ends_just_inside_the_budget() -> None:
    identity = Problem(certain(lambda u: u[:, 0]), (lambda u: u[:, 0],), 0.0)
    low, high = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    starts = torch.linspace(0.01, 0.4, 8, dtype=torch.float64).unsqueeze(1)
    budgets = torch.full((8, 1), 0.5, dtype=torch.float64)
    end = ascend(identity, starts, Region(low, high, budgets), Schedule(200, 0.05, 0.02))
    assert (end < 0.5).all()
    assert (end > 0.48).all()


def test_one_absurd_prediction_does_not_change_the_barrier_of_other_starts() -> None:
    low, high = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    starts = torch.linspace(0.01, 0.4, 8, dtype=torch.float64).unsqueeze(1)
    budgets = torch.full((8, 1), 0.5, dtype=torch.float64)
    ends = []
    for absurd in (-1.0, -1e9):

        def score(u: Tensor, absurd: float = absurd) -> Tensor:
            return torch.where(u[:, 0] < 0.02, absurd, u[:, 0])

        problem = Problem(certain(score), (lambda u: u[:, 0],), 0.0)
        ends.append(ascend(problem, starts, Region(low, high, budgets), Schedule(60, 0.05, 0.02)))
    assert torch.equal(ends[0][1:], ends[1][1:])


def test_starts_spread_over_cost_where_uniform_draws_would_not() -> None:
    low, high = torch.zeros(60, dtype=torch.float64), torch.ones(60, dtype=torch.float64)
    means = draw(128, low, high, torch.Generator().manual_seed(0)).mean(dim=1)
    assert means.min() < 0.15 and means.max() > 0.85


@pytest.mark.parametrize("seed", range(4))
def test_small_grids_are_solved_as_by_brute_force(seed: int) -> None:
    values, prices = random_problem(5, seed)
    level = torch.tensor([0.0, 0.4, 0.7, 1.0], dtype=torch.float64)
    budget = 0.45 * float(prices.sum())

    def score(u: Tensor) -> Tensor:
        return 0.9 * (u.sqrt() @ values) + 0.1 * u[:, 0] * u[:, 1]

    grid = torch.tensor(list(itertools.product(level.tolist(), repeat=5)), dtype=torch.float64)
    best = score(grid[grid @ prices <= budget]).max()
    solution = optimize(
        certain(lambda u: score(u.clamp_min(1e-12))),
        [linear_limit(prices, budget)],
        [level] * 5,
        CONFIG,
        seed,
    )
    assert solution.mean == pytest.approx(float(best), abs=1e-3)
    assert solution.costs["bops"] <= budget


@pytest.mark.parametrize("seed", range(3))
def test_twenty_coordinates_come_within_a_thousandth_of_integer_programming(seed: int) -> None:
    from scipy.optimize import Bounds, LinearConstraint, milp

    values, prices = random_problem(20, seed)
    level = torch.linspace(0, 1, 7, dtype=torch.float64)
    gains = values.unsqueeze(1) * (1 - 4.0 ** (-6 * level)) / (1 - 4.0**-6)  # d x k
    costs = prices.unsqueeze(1) * level
    budget = 0.3 * float(prices.sum())
    choose_one = np.kron(np.eye(20), np.ones(7))
    reference = milp(
        -gains.flatten().numpy(),
        constraints=[
            LinearConstraint(choose_one, 1, 1),
            LinearConstraint(costs.flatten().numpy()[None], -np.inf, budget),
        ],
        integrality=np.ones(140),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 1e-4},
    )
    predict = certain(lambda u: (1 - 4.0 ** (-6 * u)) @ values / (1 - 4.0**-6))
    solution = optimize(predict, [linear_limit(prices, budget)], [level] * 20, CONFIG, seed)
    assert solution.costs["bops"] <= budget
    assert solution.mean >= -reference.fun - 1e-3
    assert solution.mean <= -reference.fun + 1e-3


@settings(max_examples=15, deadline=None)
@given(
    d=st.integers(1, 8),
    shares=st.tuples(st.floats(0, 1.2), st.floats(0, 1.2)),
    seed=st.integers(0, 10**6),
)
def test_every_solution_lies_on_its_levels_and_meets_both_limits(
    d: int, shares: tuple[float, float], seed: int
) -> None:
    values, prices = random_problem(d, seed)
    # Few binary digits: costs are exact, like BOPs, whatever the order of summation.
    prices = (64 * prices).round() / 64
    generator = torch.Generator().manual_seed(seed)
    levels = [
        torch.randint(0, 33, (1 + i % 5,), generator=generator).double().div(32).unique()
        for i in range(d)
    ]
    low = torch.stack([level[0] for level in levels]).unsqueeze(0)
    functions = (lambda u: u @ prices + 0.5, lambda u: (1 + u).prod(dim=1))
    dearest = torch.ones(1, d, dtype=torch.float64)
    limits = [
        Limit(name, "", cost, float(cost(low)[0] + share * (cost(dearest) - cost(low))[0]))
        for name, cost, share in zip(("a", "b"), functions, shares, strict=True)
    ]
    config = OptimizeConfig(starts=4, iterations=5, kappa=0.5)
    solution = optimize(certain(lambda u: u @ values), limits, levels, config, seed)
    for coordinate, level in zip(solution.u, levels, strict=True):
        assert coordinate in level
    for limit in limits:
        assert float(limit.cost(solution.u.unsqueeze(0))[0]) <= limit.budget
        assert solution.costs[limit.name] <= limit.budget


@pytest.mark.parametrize("dearer", [0.4, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_a_cost_that_falls_with_some_coordinates_is_solved_too(seed: int, dearer: float) -> None:
    """Latency is such: of eight channel counts two are round, and all others cost more."""
    d, k = 5, 8
    weights, prices = random_problem(d, seed)
    step = torch.arange(k)
    table = (step / (k - 1) * prices[:, None] + 0.05) * (1 + dearer * (step % 4 != 3))
    place = torch.arange(d)

    def cost(u: Tensor) -> Tensor:
        at = u * (k - 1)
        left = at.detach().floor().long().clamp(0, k - 2)
        return torch.lerp(table[place, left], table[place, left + 1], at - left).sum(dim=1)

    def score(u: Tensor) -> Tensor:
        return (weights * (1 - (-3 * u).exp())).sum(dim=1)

    levels = torch.linspace(0, 1, k, dtype=torch.float64)
    every = levels[torch.cartesian_prod(*[step] * d)]
    scores, costs = score(every), cost(every)
    cheapest = float(costs.min())  # with 0.8, wider than the narrowest
    for share in (0.0, 0.1, 0.3, 0.6):
        budget = cheapest + share * (float(costs.max()) - cheapest)
        limit = Limit("latency_ms", "ms", cost, budget, rises=False)
        solution = optimize(certain(score), [limit], [levels] * d, CONFIG, seed=0)
        assert solution.costs["latency_ms"] <= budget
        assert solution.mean == pytest.approx(float(scores[costs <= budget].max()), abs=1e-3)


def test_a_budget_below_the_cheapest_policy_names_what_is_reachable() -> None:
    limit = Limit("bops", "BOPs", lambda u: 0.31e9 + u.sum(dim=1) * 1e9, 0.2e9)
    levels = [torch.tensor([0.0, 1.0])] * 2
    with pytest.raises(BudgetError) as error:
        optimize(certain(lambda u: u.sum(dim=1)), [limit], levels, CONFIG, 0)
    assert str(error.value) == (
        "bops budget 2e+08 BOPs is below the cheapest policy this search space allows "
        "(3.1e+08 BOPs); raise the budget or space.max_pruning_ratio."
    )


def test_limits_that_only_exclude_each_other_are_refused() -> None:
    levels = [torch.tensor([0.0, 0.5, 1.0])] * 2
    rising = Limit("bops", "BOPs", lambda u: 1 + u.sum(dim=1), 2.0)
    falling = Limit("latency_ms", "ms", lambda u: 3 - u.sum(dim=1), 2.0, rises=False)
    solution = optimize(certain(lambda u: u[:, 0]), [rising, falling], levels, CONFIG, 0)
    assert solution.u.tolist() == [1.0, 0.0]
    with pytest.raises(BudgetError, match=r"at once.*raise one") as error:
        optimize(
            certain(lambda u: u[:, 0]), [rising, replace(falling, budget=1.5)], levels, CONFIG, 0
        )
    assert "bops 2 BOPs, latency_ms 1.5 ms" in str(error.value)
    with pytest.raises(BudgetError, match=r"latency_ms budget 0.5 ms is below .*found.*\(1 ms\)"):
        optimize(certain(lambda u: u[:, 0]), [replace(falling, budget=0.5)], levels, CONFIG, 0)


def test_a_budget_of_exactly_the_cheapest_cost_gives_the_cheapest_policy() -> None:
    limit = Limit("bops", "BOPs", lambda u: 1 + u.sum(dim=1), 1.0)
    levels = [torch.tensor([0.0, 0.5, 1.0])] * 3
    solution = optimize(certain(lambda u: u.sum(dim=1)), [limit], levels, CONFIG, 0)
    assert solution.u.tolist() == [0.0, 0.0, 0.0]


def test_a_budget_above_the_dearest_policy_gives_the_dearest_even_on_a_plateau() -> None:
    limit = Limit("bops", "BOPs", lambda u: u.sum(dim=1), 100.0)
    levels = [torch.tensor([0.0, 0.5, 1.0])] * 3
    flat = certain(lambda u: 0 * u.sum(dim=1) + 0.5)
    solution = optimize(flat, [limit], levels, CONFIG, 0)
    assert solution.u.tolist() == [1.0, 1.0, 1.0]


def test_fixed_coordinates_stay() -> None:
    levels = [torch.tensor([0.25]), torch.tensor([0.0, 1.0]), torch.tensor([0.75])]
    limit = linear_limit(torch.ones(3, dtype=torch.float64), 2.5)
    solution = optimize(certain(lambda u: u.sum(dim=1)), [limit], levels, CONFIG, 0)
    assert solution.u.tolist() == [0.25, 1.0, 0.75]


def test_kappa_avoids_what_the_predictor_does_not_know() -> None:
    # Either coordinate fits; the first promises a little more and is uncertain.
    def predict(u: Tensor) -> Posterior:
        return Posterior(0.6 * u[:, 0] + 0.5 * u[:, 1], (0.3 * u[:, 0]).square())

    levels = [torch.tensor([0.0, 1.0])] * 2
    limit = linear_limit(torch.ones(2, dtype=torch.float64), 1.0)
    bold = optimize(predict, [limit], levels, CONFIG, 0)
    careful = optimize(predict, [limit], levels, CONFIG.model_copy(update={"kappa": 1.0}), 0)
    assert bold.u.tolist() == [1.0, 0.0]
    assert careful.u.tolist() == [0.0, 1.0]
    assert bold.std == pytest.approx(0.3)


def test_the_same_seed_gives_the_same_solution() -> None:
    values, prices = random_problem(12, 0)
    levels = [torch.linspace(0, 1, 5)] * 12
    runs = [
        optimize(
            certain(lambda u: u.sqrt() @ values), [linear_limit(prices, 2.0)], levels, CONFIG, 7
        )
        for _ in range(2)
    ]
    assert torch.equal(runs[0].u, runs[1].u)
    assert runs[0].mean == runs[1].mean


def test_levels_that_do_not_increase_are_refused() -> None:
    limit = linear_limit(torch.ones(1, dtype=torch.float64), 1.0)
    with pytest.raises(PolicyError, match="coordinate 0"):
        optimize(certain(lambda u: u[:, 0]), [limit], [torch.tensor([0.5, 0.2])], CONFIG, 0)


def test_a_front_never_falls_fits_each_budget_and_keeps_its_order() -> None:
    values, prices = random_problem(10, 3)
    levels = [torch.linspace(0, 1, 5, dtype=torch.float64)] * 10
    budgets = torch.linspace(0.5, 6.0, 8, dtype=torch.float64).flip(0)
    predict = certain(lambda u: (1 - 4.0 ** (-3 * u)) @ values)
    limit = linear_limit(prices, 0.0)
    front = optimize_many(predict, limit, budgets, levels, CONFIG, 0)
    means = [solution.mean for solution in front]
    assert means == sorted(means, reverse=True)
    for solution, budget in zip(front, budgets.tolist(), strict=True):
        assert solution.costs["bops"] <= budget
        alone = optimize(predict, [linear_limit(prices, budget)], levels, CONFIG, 0)
        assert solution.mean >= alone.mean - 1e-3


def hills(u: Tensor) -> Posterior:
    """A slope that leads astray, and a narrow, higher hill around one policy off every slope."""
    known = hill_top().to(u.dtype)
    distance = (u - known).square().sum(dim=1)
    mean = 0.3 + 0.1 * u.mean(dim=1) + 0.5 * torch.exp(-distance / 0.02)
    return Posterior(mean, torch.zeros_like(mean))


def hill_top() -> Tensor:
    return torch.tensor([0.0, 1.0, 0.25, 0.75, 0.0, 0.5, 0.25, 0.0], dtype=torch.float64)


def test_the_neighbourhood_of_known_policies_is_searched() -> None:
    levels = [torch.linspace(0, 1, 5)] * 8
    limit = linear_limit(torch.ones(8, dtype=torch.float64), 4.0)
    beside = hill_top()
    beside[5] = 0.25
    known = torch.stack([torch.ones(8, dtype=torch.float64), beside])  # the first does not fit
    missed = optimize(hills, [limit], levels, CONFIG, 0)
    found = optimize(hills, [limit], levels, CONFIG, 0, known)
    assert missed.mean < 0.5
    assert found.u.tolist() == hill_top().tolist()
    budgets = torch.tensor([2.0, 4.0, 6.0], dtype=torch.float64)
    front = optimize_many(hills, limit, budgets, levels, CONFIG, 0, known=known)
    assert [solution.u.tolist() == hill_top().tolist() for solution in front[1:]] == [True, True]
    assert front[0].mean < 0.5


def test_known_policies_that_do_not_fit_do_no_harm() -> None:
    levels = [torch.linspace(0, 1, 5)] * 8
    limit = linear_limit(torch.ones(8, dtype=torch.float64), 1.0)
    known = torch.ones(3, 8, dtype=torch.float64)
    score = certain(lambda u: u @ torch.arange(1, 9).double() / 36)
    solution = optimize(score, [limit], levels, CONFIG, 0, known)
    assert solution.u.tolist() == [0.0] * 7 + [1.0]


def test_a_front_s_scores_never_fall_as_its_costs_rise() -> None:
    # Coarse levels: a policy found for one budget often costs less than the budget below.
    values, prices = random_problem(6, 5)
    levels = [torch.tensor([0.0, 1.0], dtype=torch.float64)] * 6
    budgets = torch.linspace(0.3, 4.0, 40, dtype=torch.float64)
    predict = certain(lambda u: u @ values)
    front = optimize_many(predict, linear_limit(prices, 0.0), budgets, levels, CONFIG, 0)
    rows = sorted((solution.costs["bops"], solution.mean) for solution in front)
    assert [mean for _, mean in rows] == sorted(mean for _, mean in rows)
    assert [solution.costs["bops"] for solution in front] == [cost for cost, _ in rows]
