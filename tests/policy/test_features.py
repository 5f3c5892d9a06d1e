"""Features of policies: by hand, in [0, 1], monotone, differentiable."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seernet.config import SpaceConfig
from seernet.graph import NetworkGraph
from seernet.policy import FeatureMap, SearchSpace


def features(hand: NetworkGraph) -> FeatureMap:
    return FeatureMap(SearchSpace(hand, SpaceConfig(weight_bits=[2, 3, 4], act_bits=[2, 8])))


def test_features_by_hand(hand: NetworkGraph) -> None:
    # coordinates: kept first, kept point, weight bits deep and point, act bits deep and point
    found = features(hand)
    u = torch.tensor([[1 / 3, 1.0, 0.5, 0.0, 1.0, 0.0]], dtype=torch.float64)
    named = dict(zip(found.names, found(u)[0].tolist(), strict=True))
    assert named["pruning_ratio/first"] == pytest.approx(0.5)  # 4 of 2 to 8 channels: halved once
    assert named["pruning_ratio/point"] == pytest.approx(1.0)
    assert named["weight_bits/deep"] == pytest.approx((4**-2 - 4**-3) / (4**-2 - 4**-4))  # 0.8
    assert named["weight_bits/point"] == 0.0
    assert named["act_bits/deep"] == pytest.approx(1.0)
    # the searched layers have 1152 and 512 MACs
    assert named["sum/weight_bits"] == pytest.approx(0.8 * 1152 / 1664)
    assert named["sum/act_bits"] == pytest.approx(1152 / 1664)
    assert named["sum/kept"] == pytest.approx((0.5 + 1.0) / 2)


def test_log_bops_runs_from_zero_to_one(hand: NetworkGraph) -> None:
    found = features(hand)
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, 6)
    assert found(ends)[:, -1].tolist() == pytest.approx([0.0, 1.0])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_features_are_shares_and_never_fall(hand: NetworkGraph, seed: int) -> None:
    found = features(hand)
    pair = torch.rand(2, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = found(pair.amin(dim=0)[None]), found(pair.amax(dim=0)[None])
    assert (low >= -1e-12).all()
    assert (high <= 1 + 1e-12).all()
    assert (high >= low - 1e-12).all()


def test_gradient_matches_finite_differences(hand: NetworkGraph) -> None:
    u = torch.rand(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(features(hand), (u.requires_grad_(),))


def test_gradient_is_finite_where_groups_are_wide(resnet: NetworkGraph) -> None:
    found = FeatureMap(SearchSpace(resnet, SpaceConfig(weight_bits=[4])))
    u = torch.full((1, found.space.dimension), 0.3, dtype=torch.float64, requires_grad=True)
    found(u).sum().backward()
    assert u.grad is not None
    assert u.grad.isfinite().all()
