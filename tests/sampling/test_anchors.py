"""Anchors: uniform bit-widths, widths where the network is sensitive, spread over cost."""

import math

import pytest
import torch

from seernet.config import SpaceConfig
from seernet.policy import SearchSpace, Sensitivity, probes
from seernet.sampling import SpreadDesign, anchors

LOW, HIGH = 0.001, 0.02


@pytest.fixture(scope="module")
def design(space):
    return SpreadDesign(space, (LOW, HIGH), seed=0)


def sensitivity(space, heavy, light=1.0):
    """Each place as sensitive as `light`, the channel groups `heavy` a hundred times more."""
    found = []
    for probe in probes(space):
        weight = 100.0 * light if probe.kind == "pruning_ratio" and probe.name in heavy else light
        found.append((probe, weight / probe.value))
    return Sensitivity(space, found)


def inner_bits(space, policy):
    inner = [name for name in policy.weight_bits if name not in space.fixed_bits]
    return {(policy.weight_bits[name], policy.act_bits[name]) for name in inner}


@pytest.fixture(scope="module")
def guided(space, design):
    """Eight anchors where the first group is by far the most sensitive."""
    return anchors(design, sensitivity(space, [space.graph.groups[0].name]), 8)


def test_anchors_are_two_at_each_cost_and_use_it_up(cost, design, guided):
    assert len(guided) == 8 and design.inside(guided).all()
    place = (cost(guided).bops / design.low).log() / math.log(HIGH / LOW) * 4
    expected = torch.arange(4).repeat_interleave(2) + 0.5
    assert ((place - expected).abs() < 0.2).all()
    assert (place <= expected).all()


def test_bits_are_the_same_everywhere_and_balanced_with_the_widths(space, guided):
    policies = space.decode(guided)
    for policy in policies:
        ((weight_bits, act_bits),) = inner_bits(space, policy)
        assert abs(math.log2(weight_bits / act_bits)) <= 1.0
    for first, second in zip(policies[::2], policies[1::2], strict=True):
        assert inner_bits(space, first) != inner_bits(space, second)
    bits = [sum(inner_bits(space, policy).pop()) for policy in policies]
    assert bits[0] < bits[-1]


def test_sensitive_groups_keep_their_channels(space, design, guided):
    for number, points in ((0, guided), (-1, None)):
        heavy = space.graph.groups[number].name
        if points is None:
            points = anchors(design, sensitivity(space, [heavy]), 4)
        for policy in space.decode(points)[len(points) // 2 :]:
            others = [r for name, r in policy.pruning_ratio.items() if name != heavy]
            assert policy.pruning_ratio[heavy] < sum(others) / len(others)


def test_without_sensitivities_widths_are_uniform(space, design):
    for policy in space.decode(anchors(design, None, 6)):
        ratios = set(policy.pruning_ratio.values())
        assert max(ratios) - min(ratios) <= 0.125 + 1e-9


def test_more_than_there_are_gives_each_once(space):
    narrow = SpreadDesign(space, (0.003, 0.006), seed=0)
    points = anchors(narrow, None, 200)
    assert 2 <= len(points) < 200
    assert len(points.unique(dim=0)) == len(points)


def test_without_pruning_the_anchors_are_the_dearest_balanced_bits_of_each_cost(space):
    rigid = SearchSpace(space.graph, SpaceConfig(max_pruning_ratio=0.0))
    design = SpreadDesign(rigid, (0.004, 0.06), seed=0)
    points = anchors(design, None, 8)
    bits = [inner_bits(rigid, policy).pop() for policy in rigid.decode(points)]
    assert design.inside(points).all()
    # The two pairs of each cost are the dearest balanced ones that no lower cost had.
    assert bits == [(2, 2), (3, 3), (2, 3), (4, 4), (4, 5), (6, 6), (5, 5)]
