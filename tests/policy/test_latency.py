"""Latency is read off a table: exact where layers were timed, straight lines in between."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seernet.config import BudgetConfig, SpaceConfig
from seernet.errors import ArtifactError, BudgetError
from seernet.graph import NetworkGraph
from seernet.policy import (
    Bound,
    CostModel,
    LatencyTable,
    LayerTimes,
    SearchSpace,
    bounds,
    check_budgets,
    checked_space,
)
from seernet.policy.latency import NONE

SPACE = SpaceConfig(max_pruning_ratio=0.75, pruning_step=0.25)  # 2, 4, 6, 8 and 1 to 4 channels
ODD = ((1.0, 9.0, 9.0, 2.0),)  # milliseconds
SLOW = ((60.0, 60.0, 60.0, 1.0),)


def times(inputs: tuple[int, ...], outputs: tuple[int, ...], macs: int) -> LayerTimes:
    """A layer whose time is inputs x outputs, at 8 and 8 bits 1.5 times that; a clip is inputs."""
    rows = tuple(tuple(float(i * o) for o in outputs) for i in inputs)
    wide = tuple(tuple(1.5 * ms for ms in row) for row in rows)
    return LayerTimes(inputs, outputs, macs, rows, wide, float(inputs[-1]))


@pytest.fixture
def table() -> LatencyTable:
    """Of the small graph: 1 ms, twice the layers, and a tenth of a ms for each value."""
    layers = {
        "first": times((3,), (2, 4, 6, 8), 384),
        "deep": times((8,), (2, 4, 6, 8), 1152),
        "point": times((2, 4, 6, 8), (1, 2, 3, 4), 512),
        "last": times((1, 2, 3, 4), (2,), 8),
    }
    return LatencyTable("a device", 500.0, 1.0, 2.0, 0.1, layers)


@pytest.fixture
def cost(hand: NetworkGraph, table: LatencyTable) -> CostModel:
    return CostModel(SearchSpace(hand, SPACE), table)


def latency(cost: CostModel, first: float, point: float) -> float:
    """By hand, for kept channels of the two groups; the first and last layer have 8 bits."""
    deep, wide = 8 * first + first * point, 1.5 * (3 * first + 2 * point)
    clips = first + first
    layers = deep + wide + clips
    return 1.0 + 2.0 * layers + 0.1 * (16 * first + 16 * first + 16 * point + 2)


def at(cost: CostModel, first: float, point: float) -> torch.Tensor:
    """A relaxed policy with these kept channels, and low bits."""
    u = torch.zeros(1, cost.space.dimension, dtype=torch.float64)
    u[0, 0], u[0, 1] = (first - 2) / 6, (point - 1) / 3
    return u


@pytest.mark.parametrize(("first", "point"), [(8, 4), (4, 1), (2, 4), (2, 1), (3, 1), (5.5, 2.5)])
def test_layers_fixed_time_and_values_add_up(cost: CostModel, first: float, point: float) -> None:
    assert float(cost(at(cost, first, point)).latency_ms) == pytest.approx(
        latency(cost, first, point)
    )


def test_bits_count_in_clips_and_where_weights_and_input_both_have_eight(cost: CostModel) -> None:
    column = {(c.kind, c.name): i for i, c in enumerate(cost.space.coordinates)}
    weights, inputs = (column[kind, "deep"] for kind in ("weight_bits", "act_bits"))
    u = at(cost, 4, 4).repeat(4, 1)
    u[1, weights] = u[2, inputs] = u[3, weights] = u[3, inputs] = 1.0
    low, heavy, exact, both = cost(u).latency_ms.tolist()
    assert low == heavy
    assert exact == pytest.approx(low - 2.0 * 4)  # no clip
    assert both == pytest.approx(exact + 2.0 * 0.5 * 8 * 4)


def test_there_is_a_gradient(cost: CostModel) -> None:
    u = at(cost, 5.0, 2.0).requires_grad_()
    cost(u).latency_ms.sum().backward()
    assert u.grad is not None
    # d/d(first) = 2 (1.5 x 3 + 8 + point + 2) + 3.2, over a range of 6 channels; low bits have none
    assert u.grad[0, 0].item() == pytest.approx(6 * (2 * 16.5 + 3.2))
    assert u.grad[0, 1].item() == pytest.approx(3 * (2 * (5.0 + 1.5 * 2) + 1.6))
    assert not u.grad[0, 2:].any()


def test_between_seven_and_eight_bits_there_is_a_gradient(cost: CostModel) -> None:
    u = at(cost, 8.0, 4.0)
    u[0, 2:] = 0.95
    u.requires_grad_()
    cost(u).latency_ms.sum().backward()
    assert u.grad is not None and bool((u.grad[0, 2:] > 0.0).all())


def test_at_eight_bits_the_gradient_is_that_below_them(cost: CostModel) -> None:
    u = at(cost, 8.0, 4.0)
    u[0, 2:] = 1.0
    u.requires_grad_()
    cost(u).latency_ms.sum().backward()
    assert u.grad is not None
    step = 1e-6
    for column in range(2, cost.space.dimension):
        below = u.detach().clone()
        below[0, column] -= step
        fall = float((cost(u.detach()).latency_ms - cost(below).latency_ms).sum())
        assert float(u.grad[0, column]) == pytest.approx(fall / step, rel=1e-4)


def test_many_policies_are_those_one_by_one(cost: CostModel) -> None:
    u = torch.rand(50, cost.space.dimension, dtype=torch.float64)
    each = [float(cost(row[None]).latency_ms) for row in u]
    assert cost(u).latency_ms.tolist() == pytest.approx(each)


def test_more_channels_may_take_less_time(hand: NetworkGraph, table: LatencyTable) -> None:
    odd = LayerTimes((3,), (2, 4, 6, 8), 384, ODD, ODD, 3.0)
    table = replace(table, factor=1.0, ms_per_value=0.0, layers={**table.layers, "first": odd})
    cost = CostModel(SearchSpace(hand, SPACE), table)
    few, all_of_them = (float(cost(at(cost, n, 1)).latency_ms) for n in (4, 8))
    assert few - all_of_them == pytest.approx((9 - 2) + (8 + 1 + 2) * (4 - 8))


def test_limits_are_absolute_or_relative_to_the_baseline(cost: CostModel) -> None:
    config = BudgetConfig(latency_ratio=0.4, latency_ms=250.0, macs=900.0)
    assert bounds(config, cost) == (Bound("latency_ms", 200.0), Bound("macs", 900.0))


def test_an_unreachable_limit_is_refused(cost: CostModel) -> None:
    with pytest.raises(BudgetError, match=r"`low`: 10 ms \(0.02 of the baseline\) is below"):
        check_budgets({"low": BudgetConfig(latency_ms=10.0)}, cost)


def test_the_fastest_policy_need_not_be_the_narrowest(
    hand: NetworkGraph, table: LatencyTable
) -> None:
    odd = LayerTimes((3,), (2, 4, 6, 8), 384, SLOW, SLOW, 3.0)
    table = replace(table, factor=1.0, ms_per_value=0.0, layers={**table.layers, "first": odd})
    cost = CostModel(SearchSpace(hand, SPACE), table)
    # by hand, inputs not clipped: 1 + 60 + 8 x 2 + 2 + 3 = 82 ms with 2 channels and 1, and
    # 1 + 1 + 64 + 8 + 3 with 8 and 1
    check_budgets({"low": BudgetConfig(latency_ms=77.0)}, cost)
    with pytest.raises(BudgetError, match=r"`low`: 76\.9 ms .*found.*\(77 ms, 0\.154 of"):
        check_budgets({"low": BudgetConfig(latency_ms=76.9)}, cost)


def test_without_a_table_other_limits_are_checked_and_this_one_is_not_known(
    hand: NetworkGraph,
) -> None:
    bare = CostModel(SearchSpace(hand, SPACE))
    check_budgets({"low": BudgetConfig(latency_ms=1e-9, latency_ratio=1e-9)}, bare)
    with pytest.raises(BudgetError, match="1 bytes"):
        check_budgets({"low": BudgetConfig(latency_ms=1.0, size_bytes=1.0)}, bare)
    for config in (BudgetConfig(latency_ms=1.0), BudgetConfig(latency_ratio=1.0)):
        with pytest.raises(BudgetError, match=r"latency\.table"):
            bounds(config, bare)


def test_a_table_of_another_network_is_refused(hand: NetworkGraph, table: LatencyTable) -> None:
    space = SearchSpace(hand, SPACE)
    wider = {**table.layers, "point": times((2, 4, 6, 8), (1, 2, 3, 5), 512)}
    larger = {**table.layers, "first": times((3,), (2, 4, 6, 8), 4 * 384)}
    fewer = {name: entry for name, entry in table.layers.items() if name != "deep"}
    more = {**table.layers, "other": times((1,), (1,), 1)}
    for layers, odd in ((wider, "point"), (larger, "first"), (fewer, "deep"), (more, "other")):
        with pytest.raises(ArtifactError, match=f"another network or image size.*{odd}"):
            CostModel(space, replace(table, layers=layers))


def test_a_table_of_another_space_is_refused(hand: NetworkGraph, table: LatencyTable) -> None:
    finer = SearchSpace(hand, SpaceConfig(max_pruning_ratio=0.75, pruning_step=0.125))
    with pytest.raises(ArtifactError, match=r"another search space: in first .*measure again"):
        CostModel(finer, table)


def test_it_is_read_as_it_was_written(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path / "latency.json")
    assert LatencyTable.load(tmp_path / "latency.json") == table
    assert LatencyTable.of_run(tmp_path / "latency.json") == table


def test_that_there_is_none_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    assert LatencyTable.of_run(path) is None
    path.write_text(NONE, encoding="utf-8")
    assert LatencyTable.of_run(path) is None
    with pytest.raises(ArtifactError, match=r"there is none\).*`latency\.table: measure`"):
        LatencyTable.load(path)


def entry(inputs: list[int], outputs: list[int], ms: list, clip_ms: float = 0.0) -> dict:
    """A layer, as a file has it."""
    ends = {"inputs": inputs, "outputs": outputs, "macs": 1}
    return {**ends, "ms": ms, "wide_ms": ms, "clip_ms": clip_ms}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"target": None},
        {"layers": None},
        {"fixed_ms": -1.0},
        {"factor": "1"},
        {"baseline_ms": float("nan")},
        {"unknown": 1},
        {"layers": {"first": entry([3], [8, 4], [[1.0, 2.0]])}},
        {"layers": {"first": entry([3], [8], [[1.0, 2.0]])}},
        {"layers": {"first": entry([3], [8], [[-1.0]])}},
        {"layers": {"first": entry([3], [8], [[float("inf")]])}},
        {"layers": {"first": entry([3], [8], [[1.0]], float("nan"))}},
        {"layers": {"first": {**entry([3], [8], [[1.0]]), "wide_ms": [[1.0, 2.0]]}}},
        {"layers": {"first": entry([], [], [])}},
        {"layers": {"first": entry([3], [], [[]])}},
        {"layers": {"first": entry([-3], [8], [[1.0]])}},
        {"layers": {"first": entry([3], [8], [[10**400]])}},
        {"layers": {"first": {**entry([3], [8], [[1.0]]), "macs": 1.5}}},
        {"layers": {"first": {**entry([3], [8], [[1.0]]), "clip_ms": "0.1"}}},
        {"layers": {"first": {**entry([3], [8], [[1.0]]), "more": 1}}},
    ],
)
def test_a_damaged_table_is_refused(table: LatencyTable, tmp_path: Path, change: dict) -> None:
    path = tmp_path / "latency.json"
    table.save(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**document, **change}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="cannot read the latency table"):
        LatencyTable.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "latency.json"
    path.write_bytes(content)
    for read in (LatencyTable.load, LatencyTable.of_run):
        with pytest.raises(ArtifactError, match="cannot read the latency table"):
            read(path)


def test_the_space_is_checked_with_the_table(hand: NetworkGraph, table: LatencyTable) -> None:
    from types import SimpleNamespace
    from typing import Any

    params: Any = SimpleNamespace(
        space=SPACE,
        budgets={"low": BudgetConfig(latency_ms=10.0)},
        sample=SimpleNamespace(cost_range=[0.001, 0.5]),
    )
    assert checked_space(hand, params).dimension
    with pytest.raises(BudgetError, match="`low`"):
        checked_space(hand, params, table)
