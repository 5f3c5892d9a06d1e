"""The spread design fills the cost range, and its n-th policy never depends on how many follow."""

import pytest
import torch
from torch import nn

from seernet.config import SpaceConfig
from seernet.errors import ConfigError
from seernet.models import trace
from seernet.policy import SearchSpace
from seernet.sampling import SpreadDesign


def test_costs_fill_the_range_evenly_in_log(space, cost):
    design = SpreadDesign(space, (0.001, 0.03), seed=0)
    ratio = cost(design.draw_many(0, 40)).bops / cost.baseline().bops
    assert ratio.min() >= 0.001 and ratio.max() <= 0.03
    quarters = torch.histc(ratio.log10().float(), bins=4, min=-3.0, max=-1.523)
    assert quarters.min() >= 7  # ten each, if perfectly even


def test_a_longer_sequence_starts_with_the_shorter_one(space):
    design = SpreadDesign(space, (0.001, 0.03), seed=5)
    assert torch.equal(design.draw_many(0, 9)[:4], design.draw_many(0, 4))
    assert torch.equal(design.draw_many(4, 2), design.draw_many(0, 6)[4:])


def test_seeds_give_different_policies(space):
    first = SpreadDesign(space, (0.001, 0.03), seed=1).draw_many(0, 3)
    assert not torch.equal(first, SpreadDesign(space, (0.001, 0.03), seed=2).draw_many(0, 3))


def test_policies_are_discrete(space):
    points = SpreadDesign(space, (0.001, 0.03), seed=0).draw_many(0, 5)
    assert torch.equal(points, space.round(points))


def test_one_cost_is_reached_by_unlike_policies(space, cost):
    """Profiles differ at like cost, unlike those of independent uniform draws."""
    points = SpreadDesign(space, (0.001, 0.03), seed=0).draw_many(0, 40)
    share = cost(points).macs / cost.baseline().macs
    assert share.min() < 0.2 and share.max() > 0.5


def test_a_range_beyond_the_space_is_refused(space):
    with pytest.raises(ConfigError, match=r"costs run from 0\.0003634 to 0\.0625 of the baseline"):
        SpreadDesign(space, (0.07, 0.2), seed=0)
    with pytest.raises(ConfigError, match="widen it"):
        SpreadDesign(space, (1e-5, 2e-4), seed=0)


def test_a_range_that_holds_no_discrete_policy_is_refused(space):
    with pytest.raises(ConfigError, match="widen the range"):
        SpreadDesign(space, (0.01, 0.01 * (1 + 1e-12)), seed=0).draw_many(0, 1)


def test_a_coarse_space_is_drawn_from_up_to_the_ends_of_its_range():
    """Near an end rounding may leave the range; what lies inside is taken, wherever it aimed."""
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )
    config = SpaceConfig(
        max_pruning_ratio=0.5, pruning_step=0.25, weight_bits=[2, 4, 8], act_bits=[2, 4, 8]
    )
    space = SearchSpace(trace(network.eval(), (3, 16, 16), 3), config)
    design = SpreadDesign(space, (0.008, 0.06), seed=0)
    assert bool(design.inside(design.draw_many(0, 64)).all())
