"""Settled biases are whole multiples of what an accumulator counts, and change little."""

import pytest
import torch
from torch import nn

from seernet.compression import compress, fold_norms, profile_of
from seernet.compression.layers import QuantConv2d, QuantLinear
from seernet.evaluation.settling import settle, stretched_integers
from seernet.models import trace
from seernet.policy import Policy

SHAPE = (3, 16, 16)


@pytest.fixture(params=[2, 8])
def network(request):
    """A layer with a norm of mixed signs, one with a bias of its own, one with neither."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).eval()
    with torch.no_grad():
        model[1].weight.mul_(torch.tensor([1.0, -2.0, 3.0, -0.1, 0.0, 1.0]))
        model[1].bias.normal_()
    graph = trace(model, SHAPE, 3)
    bits = dict.fromkeys((layer.name for layer in graph.layers), request.param)
    policy = Policy({group.name: 0.0 for group in graph.groups}, bits, bits)
    return compress(model, policy, graph, torch.randn(32, *SHAPE)).eval()


def test_biases_are_multiples_and_move_by_half_a_unit_at_most(network):
    before = fold_norms(network, profile_of(network, SHAPE))
    settle(network, SHAPE)
    after = fold_norms(network, profile_of(network, SHAPE))
    checked = 0
    for name, layer in after.named_modules():
        if isinstance(layer, QuantConv2d | QuantLinear) and layer.bias is not None:
            unit = stretched_integers(layer)[1] * layer.act_quantizer.step
            count = layer.bias / unit
            torch.testing.assert_close(count, count.round(), atol=0.02, rtol=1e-5)
            moved = (layer.bias - before.get_submodule(name).bias).abs()
            assert bool((moved <= 0.51 * unit).all())
            checked += 1
    assert checked == 3


def test_settling_again_changes_nothing_more(network):
    settle(network, SHAPE)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    settle(network, SHAPE)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, state[name], atol=1e-5, rtol=1e-5)


def test_stretched_weights_are_the_weights(network):
    folded = fold_norms(network, profile_of(network, SHAPE))
    for layer in folded.modules():
        if isinstance(layer, QuantConv2d | QuantLinear):
            integers, scale = stretched_integers(layer)
            with torch.no_grad():
                expected = layer.weight_quantizer(layer.weight)
            restored = integers * scale.view(-1, *[1] * (integers.dim() - 1))
            # Of -128, which cannot be negated.
            most = layer.weight_quantizer.step.detach().abs().max()
            allowed = float(most) if layer.weight_quantizer.bits == 8 else 1e-6
            torch.testing.assert_close(restored, expected, atol=1.01 * allowed, rtol=1e-5)
            assert int(integers.abs().max()) <= 128


@pytest.mark.parametrize("gamma", [1e-6, 1e-12, 1e-36, 1e-42])
def test_channels_that_a_norm_all_but_silences_keep_biases_that_an_accumulator_holds(gamma):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([1.0, gamma, -gamma, gamma]))
        model[1].bias.copy_(torch.tensor([0.5, 2.0, -3.0, 0.0]))
    graph = trace(model, SHAPE, 4)
    bits = dict.fromkeys((layer.name for layer in graph.layers), 8)
    images = torch.randn(8, *SHAPE)
    network = compress(model, Policy({}, bits, bits), graph, images).eval()
    with torch.no_grad():
        before = network(images)
        settle(network, SHAPE)
        torch.testing.assert_close(network(images), before, rtol=1e-4, atol=1e-3)
    (layer,) = (m for m in fold_norms(network, profile_of(network, SHAPE)).modules()
                if isinstance(m, QuantConv2d))  # fmt: skip
    _, scale = stretched_integers(layer)
    assert bool((scale > 0.0).all())
    counts = (layer.bias / (scale * layer.act_quantizer.step)).abs()
    assert float(counts.detach().max()) < 2**31
