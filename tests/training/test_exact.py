"""Scores in float64 do not depend on the last bits of what is computed."""

import copy

import pytest
import torch

from seernet.compression import compress
from seernet.policy import Policy
from seernet.training import Exact


@pytest.fixture
def network(traced):
    """ResNet-20 of 8 bits: where a sum lies between two integers, its last bit decides."""
    model, graph = traced("resnet20")
    bits = dict.fromkeys((layer.name for layer in graph.layers), 8)
    images = torch.randn(16, *graph.input_shape, generator=torch.Generator().manual_seed(0))
    return compress(model, Policy({}, bits, bits), graph, images).eval(), images


def nudged(network, size):
    """The same network, whose maps are off by a hair."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, out: out * (1.0 + size))
    return network


@torch.no_grad()
def test_rounding_in_float64_decides_nothing(network):
    network, images = network
    expected = Exact(network)(images)
    assert expected.dtype == torch.float64
    torch.testing.assert_close(Exact(nudged(network, 1e-14))(images), expected, rtol=0, atol=1e-9)
    # That of float32 does: else there would be no need for this.
    off = (Exact(nudged(network, 2**-22))(images) - expected).abs().max()
    assert float(off) > 0.001 * float(expected.std())


@torch.no_grad()
def test_the_network_itself_stays_as_it_is(network):
    network, images = network
    before = network(images)
    Exact(network)(images)
    assert torch.equal(network(images), before)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
