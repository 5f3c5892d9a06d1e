"""The cost model: by hand, against published numbers, differentiable and monotone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seernet.config import SpaceConfig
from seernet.graph import Layer, NetworkGraph, Norm, Whole
from seernet.policy import CostModel, Costs, Policy, SearchSpace


def model(graph: NetworkGraph) -> CostModel:
    return CostModel(SearchSpace(graph, SpaceConfig()))


def every(costs: Costs) -> tuple[torch.Tensor, ...]:
    return costs.bops, costs.macs, costs.size_bytes, costs.parameters


def random_points(cost: CostModel, n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, cost.space.dimension, generator=generator, dtype=torch.float64)


def test_costs_by_hand(hand: NetworkGraph) -> None:
    # 4 of 8 and 3 of 4 channels stay, middle layers at 3 and 5 bits
    # MACs: 3*4*16 = 192; 4*9*16 = 576; 4*3*16 = 192; 3*2 = 6
    # bytes: weights (12 + 6) * 8 bits, (36 + 12) * 3 bits; biases and scales 4 + 4 + 3 + 2 each,
    # and an input scale for each of the four layers, 4 bytes each
    bits = {"first": 8, "deep": 3, "point": 3, "last": 8}
    policy = Policy({"first": 0.5, "point": 0.25}, bits, bits | {"deep": 5, "point": 5})
    cost = model(hand)
    costs = cost(cost.space.encode([policy]))
    assert costs.macs.item() == 192 + 576 + 192 + 6
    assert costs.bops.item() == 64 * (192 + 6) + 15 * (576 + 192)
    assert costs.parameters.item() == 12 + 36 + 12 + 6 + 13
    assert costs.size_bytes.item() == 18 + 48 * 3 / 8 + 4 * (13 + 13 + 4)


def test_baseline_is_full_width_at_32_bits(hand: NetworkGraph) -> None:
    costs = model(hand).baseline()
    assert costs.macs.item() == 384 + 1152 + 512 + 8
    assert costs.bops.item() == (384 + 1152 + 512 + 8) * 1024
    assert costs.size_bytes.item() == 4 * (24 + 72 + 32 + 8 + 8 + 8 + 4 + 2)


def test_each_stored_map_has_one_scale_once_anything_is_quantized(hand: NetworkGraph) -> None:
    with_maps = replace(hand, maps=3)
    one, other = (CostModel(SearchSpace(g, SpaceConfig())) for g in (hand, with_maps))
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(4, one.space.dimension, generator=generator, dtype=torch.float64)
    u = one.space.round(points)  # sizes of discrete policies are exact
    assert torch.equal(other(u).size_bytes, one(u).size_bytes + 12)
    assert torch.equal(other(u).bops, one(u).bops)
    assert every(other.baseline()) == every(one.baseline())


def test_maps_of_resnet20_are_the_stem_and_both_branches_and_sums(resnet: NetworkGraph) -> None:
    assert resnet.maps == 1 + 9 + 2 + 9  # a shortcut of two blocks is a convolution


def test_whole_parts_and_norms_are_counted(hand: NetworkGraph) -> None:
    graph = replace(
        hand,
        whole=(Whole("attention", 100, 7, ""),),
        norms=(Norm("norm", 8, {"first": 8}), Norm("slope", 4, {"point": 4}, 1)),
    )
    cheapest = torch.zeros(1, model(hand).space.dimension, dtype=torch.float64)  # keeps 2 and 1
    extra = [
        a.item() - b.item()
        for a, b in zip(every(model(graph)(cheapest)), every(model(hand)(cheapest)), strict=True)
    ]
    floats = 7 + 2 * 2 + 1
    assert extra == [100 * 1024, 100, 4 * floats, floats]


def test_large_layers_stay_exact(hand: NetworkGraph) -> None:
    # VGG-16's first linear layer: MACs times channel pairs exceed 2^53
    n, m = 25088, 4096
    large = Layer("deep", "linear", n * m, n * m, n, m, {"first": 8}, {}, False, False, False)
    graph = replace(hand, layers=(large,))
    cost = CostModel(SearchSpace(graph, SpaceConfig(pruning_step=0.125)))
    u = torch.zeros(1, cost.space.dimension, dtype=torch.float64)
    u[0, 0] = 1 / 6  # 3 of 8 channels
    assert int(cost(u).macs) == (n - 5) * m


def test_resnet20_has_40_81_million_macs(resnet: NetworkGraph) -> None:
    assert model(resnet).baseline().macs.item() == pytest.approx(40.81e6, abs=5e3)


@pytest.mark.parametrize(("bits", "gbops"), [(4, 0.6743), (3, 0.3917), (2, 0.1898)])
def test_uniform_resnet20_costs_what_is_published(
    resnet: NetworkGraph, bits: int, gbops: float
) -> None:
    cost = model(resnet)
    names = {x.name: 8 if x.edge else bits for x in resnet.layers}
    policy = Policy({g.name: 0.0 for g in resnet.groups}, names, names)
    assert cost(cost.space.encode([policy])).bops.item() / 1e9 == pytest.approx(gbops, abs=5e-5)


def test_many_policies_cost_what_each_costs_alone(resnet: NetworkGraph) -> None:
    cost = model(resnet)
    u = random_points(cost, 7)
    together = cost(u)
    for row in range(7):
        for many, one in zip(every(together), every(cost(u[row : row + 1])), strict=True):
            torch.testing.assert_close(many[row : row + 1], one, rtol=1e-12, atol=0)


def test_gradient_matches_finite_differences(hand: NetworkGraph) -> None:
    cost = model(hand)
    u = random_points(cost, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: every(cost(x)), (u,), eps=1e-5)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_cost_never_falls_when_a_coordinate_rises(hand: NetworkGraph, seed: int) -> None:
    cost = model(hand)
    low, high = random_points(cost, 2, seed)
    lower, higher = cost(torch.minimum(low, high)[None]), cost(torch.maximum(low, high)[None])
    assert all((b >= a - 1e-9).all() for a, b in zip(every(lower), every(higher), strict=True))


def test_layer_macs_add_up(resnet: NetworkGraph) -> None:
    cost = model(resnet)
    u = random_points(cost, 3)
    torch.testing.assert_close(cost(u).layer_macs.sum(dim=1), cost(u).macs, rtol=1e-12, atol=0)
