"""Packed networks are as small as they are said to be, and compute what they computed."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seernet.compression import (
    build_compressed,
    compress,
    count,
    kept_channels,
    pack,
    pack_bits,
    quantizers,
    signs,
    unpack,
    unpack_bits,
)
from seernet.config import SpaceConfig
from seernet.errors import ArtifactError
from seernet.policy import SearchSpace
from seernet.sampling import SpreadDesign

NETWORKS = ["resnet20", "vgg_small", "torchvision:mobilenet_v2"]


@settings(max_examples=50, deadline=None)
@given(
    st.integers(2, 8).flatmap(
        lambda bits: st.tuples(
            st.just(bits), st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=70)
        )
    )
)
def test_bits_come_back(case):
    bits, values = case
    packed = pack_bits(torch.tensor(values), bits)
    assert len(packed) == math.ceil(len(values) * bits / 8)
    assert unpack_bits(packed, bits, len(values)).tolist() == values


def test_three_bits_by_hand():
    """1, 2, 7 are 001, 010, 111; the lowest bit of the first comes first: 1 1101 0001 -> 209, 1."""
    assert pack_bits(torch.tensor([1, 2, 7]), 3).tolist() == [0b11010001, 0b1]


def test_cut_off_bytes_are_refused():
    with pytest.raises(ArtifactError, match=r"2 packed bytes do not hold 4 values of 5 bits"):
        unpack_bits(torch.zeros(2, dtype=torch.uint8), 5, 4)


@pytest.fixture(params=NETWORKS)
def compressed(request, traced):
    """A compressed network with norms of its own, its policy, its skeleton, and images."""
    model, graph = traced(request.param)
    space = SearchSpace(graph, SpaceConfig())
    policy = space.decode(SpreadDesign(space, (0.003, 0.03), 0).draw_many(0, 1))[0]
    images = torch.randn(32, *graph.input_shape, generator=torch.Generator().manual_seed(0))
    network = compress(model, policy, graph, images).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # some factors are negative
                module.weight.normal_(generator=generator)
                module.bias.normal_(0.0, 0.3, generator=generator)
    skeleton = build_compressed(model, policy, graph, kept_channels(model, policy, graph))
    return network, skeleton, graph.input_shape, images


def test_packed_network_takes_the_bytes_that_are_counted(compressed):
    network, _, shape, _ = compressed
    stored = sum(value.numel() * value.element_size() for value in pack(network, shape).values())
    assert stored == pytest.approx(count(network, shape).size_bytes, rel=0.01)


def test_unpacked_network_computes_the_same(compressed):
    network, skeleton, shape, images = compressed
    restored = unpack(skeleton, pack(network, shape), signs(network), shape)
    with torch.no_grad():
        expected, found = network(images), restored(images)
    assert bool(found.isfinite().all())
    # Rounding in the last place may push an activation over the edge of a quantization step.
    assert float((found - expected).abs().mean()) < 0.02 * float(expected.std())
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.9


def test_integers_come_back_bit_for_bit(compressed):
    network, skeleton, shape, _ = compressed
    restored = unpack(skeleton, pack(network, shape), signs(network), shape)
    parts = dict(restored.named_modules())
    compared = 0
    for name, module in network.named_modules():
        quantizer = getattr(module, "weight_quantizer", None)
        if quantizer is not None:
            expected = quantizer.integers(module.weight)
            found = parts[name].weight_quantizer.integers(parts[name].weight)
            assert torch.equal(found, expected), name
            compared += 1
    assert compared > 5
    assert [q.signed for q in quantizers(restored)] == [q.signed for q in quantizers(network)]


def test_channel_that_its_norm_silences_stays_silent(compressed):
    network, skeleton, shape, images = compressed
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight[0] = 0.0
        expected = network(images)
        found = unpack(skeleton, pack(network, shape), signs(network), shape)(images)
    assert float((found - expected).abs().mean()) < 0.02 * float(expected.std())


def test_packing_leaves_the_network_alone(compressed):
    network, _, shape, _ = compressed
    before = {key: value.clone() for key, value in network.state_dict().items()}
    pack(network, shape)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_tensors_of_another_network_are_refused(compressed):
    network, skeleton, shape, _ = compressed
    tensors, signed = pack(network, shape), signs(network)
    name = next(key for key in tensors if key.endswith(".scale"))
    wrong = [
        tensors | {name: tensors[name][:-1]},
        {key: value for key, value in tensors.items() if key != name},
        tensors | {"surplus": tensors[name]},
    ]
    for each in wrong:
        with pytest.raises(ArtifactError, match="do not belong to the network"):
            unpack(copy.deepcopy(skeleton), each, signed, shape)
    with pytest.raises(ArtifactError, match="do not belong to the network"):
        unpack(skeleton, tensors, {}, shape)
