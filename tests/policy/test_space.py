"""The search space: its grid by hand, and one encoding both ways."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seernet.config import SpaceConfig
from seernet.errors import PolicyError
from seernet.graph import ChannelGroup, NetworkGraph
from seernet.policy import Policy, SearchSpace


def values(graph: NetworkGraph, **config: object) -> dict[str, tuple[int, ...]]:
    space = SearchSpace(graph, SpaceConfig.model_validate(config))
    return {c.name: c.values for c in space.coordinates if c.kind == "pruning_ratio"}


def test_ratio_grid_by_hand(hand: NetworkGraph) -> None:
    # ratios 0, 0.25, 0.5 of 8 and of 4 channels
    grid = values(hand, max_pruning_ratio=0.5, pruning_step=0.25)
    assert grid == {"first": (4, 6, 8), "point": (2, 3, 4)}


def test_channel_multiple_by_hand(hand: NetworkGraph) -> None:
    # 8 * (7, 6, 5, 4, 3, 2)/8, rounded to multiples of 4, halves to even; full width always stays
    grid = values(hand, max_pruning_ratio=0.75, pruning_step=0.125, channel_multiple=4)
    assert grid == {"first": (4, 8), "point": (4,)}


def test_full_width_stays_where_the_multiple_does_not_divide_it(hand: NetworkGraph) -> None:
    graph = replace(hand, groups=(ChannelGroup("first", 10, ()),))
    grid = values(graph, max_pruning_ratio=0.5, pruning_step=0.5, channel_multiple=4)
    assert grid == {"first": (4, 10)}  # 5 rounds to 4


def test_at_least_one_channel_stays(hand: NetworkGraph) -> None:
    grid = values(hand, max_pruning_ratio=0.99, pruning_step=0.99)
    assert grid == {"first": (1, 8), "point": (1, 4)}


def test_no_pruning_leaves_full_width(hand: NetworkGraph) -> None:
    assert values(hand, max_pruning_ratio=0.0) == {"first": (8,), "point": (4,)}


def test_edge_layers_are_fixed_and_no_coordinates(hand: NetworkGraph) -> None:
    space = SearchSpace(hand, SpaceConfig(edge_bits=8))
    searched = [c.name for c in space.coordinates if c.kind == "weight_bits"]
    assert searched == ["deep", "point"]
    (policy,) = space.decode(torch.zeros(1, space.dimension, dtype=torch.float64))
    assert policy.weight_bits == {"first": 8, "deep": 2, "point": 2, "last": 8}
    assert policy.act_bits == policy.weight_bits


def test_edge_layers_are_searched_with_null_edge_bits(hand: NetworkGraph) -> None:
    space = SearchSpace(hand, SpaceConfig(edge_bits=None))
    searched = [c.name for c in space.coordinates if c.kind == "act_bits"]
    assert searched == ["first", "deep", "point", "last"]
    assert space.dimension == 2 + 4 + 4


def test_levels_by_hand(hand: NetworkGraph) -> None:
    config = SpaceConfig(max_pruning_ratio=0.5, pruning_step=0.25, weight_bits=[2, 4, 8])
    levels = SearchSpace(hand, config).levels
    assert levels[0].tolist() == [0.0, 0.5, 1.0]
    assert levels[2].tolist() == pytest.approx([0.0, 1 / 3, 1.0])


def test_single_value_lies_at_one(hand: NetworkGraph) -> None:
    space = SearchSpace(hand, SpaceConfig(weight_bits=[4]))
    u = space.encode(space.decode(torch.zeros(1, space.dimension, dtype=torch.float64)))
    assert u[0, 2].item() == 1.0
    assert space.physical(torch.zeros_like(u))[0, 2].item() == 4.0


def test_round_takes_the_nearest(hand: NetworkGraph) -> None:
    space = SearchSpace(hand, SpaceConfig(weight_bits=[2, 4, 8]))
    u = torch.full((1, space.dimension), 0.6, dtype=torch.float64)  # 5.6 bits: 4 is nearer
    assert space.decode(u)[0].weight_bits["deep"] == 4


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), step=st.sampled_from([0.125, 0.1, 0.3]), edge=st.booleans())
def test_encode_inverts_decode(hand: NetworkGraph, seed: int, step: float, edge: bool) -> None:
    config = SpaceConfig(pruning_step=step, weight_bits=[2, 5, 8], edge_bits=8 if edge else None)
    space = SearchSpace(hand, config)
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(4, space.dimension, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(space.encode(space.decode(u)), space.round(u), rtol=0, atol=1e-12)
    assert space.decode(space.round(u)) == space.decode(u)


def changed(policy: Policy, kind: str, name: str, value: float | None) -> Policy:
    entries = dict(getattr(policy, kind))
    entries.pop(name, None)
    return replace(policy, **{kind: entries if value is None else entries | {name: value}})


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        ("weight_bits", "deep", None, "weight_bits.*deep.*another network"),
        ("act_bits", "alien", 4, "act_bits.*alien.*another network"),
        ("pruning_ratio", "alien", 0.5, "pruning_ratio.*alien.*another network"),
        ("pruning_ratio", "first", None, "pruning_ratio.*first.*another network"),
        ("weight_bits", "deep", 7, r"weight_bits of 'deep'.*\[2, 4\].*7.*another space"),
        ("pruning_ratio", "first", 0.875, r"kept channels of 'first'.*1.*another space"),
        ("act_bits", "last", 4, "act_bits of 'last' must be 8.*edge_bits.*4"),
    ],
)
def test_foreign_policy_is_refused(
    hand: NetworkGraph, kind: str, name: str, value: float | None, message: str
) -> None:
    space = SearchSpace(hand, SpaceConfig(weight_bits=[2, 4]))
    (policy,) = space.decode(torch.ones(1, space.dimension, dtype=torch.float64))
    with pytest.raises(PolicyError, match=message):
        space.encode([changed(policy, kind, name, value)])


def test_space_with_nothing_to_search_is_refused(hand: NetworkGraph) -> None:
    graph = replace(hand, groups=(), layers=(hand.layers[0], hand.layers[-1]))
    with pytest.raises(PolicyError, match="edge_bits"):
        SearchSpace(graph, SpaceConfig())


def test_space_of_one_policy_is_refused(hand: NetworkGraph) -> None:
    with pytest.raises(PolicyError, match=r"one policy only.*space\.weight_bits"):
        SearchSpace(hand, SpaceConfig(weight_bits=[8], act_bits=[8], max_pruning_ratio=0.0))
