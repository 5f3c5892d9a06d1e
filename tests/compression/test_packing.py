"""Packed networks are as small as they are said to be, and compute what they computed."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

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
from seernet.evaluation.settling import settle
from seernet.models import trace
from seernet.policy import Policy, SearchSpace
from seernet.sampling import SpreadDesign
from seernet.training import seeded

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


class Activated(nn.BatchNorm2d):
    """A norm with an activation in it, as timm has them."""

    def forward(self, x):
        return super().forward(x).relu()


class OnTokens(nn.Module):
    """A linear layer on tokens, and a norm that takes the tokens for channels."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(48, 8)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        tokens = x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).permute(0, 2, 3, 1, 4)
        return self.head(self.norm(self.embed(tokens.reshape(len(x), 16, 48))).mean(1))


def norm_of(kind):
    """A network whose norm cannot simply be folded into the layer before it."""
    if kind == "tokens":
        return OnTokens()
    norms = {
        "activated": Activated(8),
        "without statistics": nn.BatchNorm2d(8, track_running_stats=False),
        "without scale": nn.BatchNorm2d(8, affine=False),
    }
    first, last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
    return nn.Sequential(first, norms[kind], last, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("kind", ["activated", "without statistics", "without scale", "tokens"])
def test_a_norm_that_is_more_than_scale_and_shift_stays(kind):
    with seeded(0):
        model, shape = norm_of(kind), (3, 16, 16)
        images = torch.randn(32, *shape)
        model.train()(images)
    model.eval()
    graph = trace(model, shape)
    bits = dict.fromkeys((layer.name for layer in graph.layers), 8)
    policy = Policy({}, bits, bits)
    network = compress(model, policy, graph, images).eval()
    settle(network, shape)
    skeleton = build_compressed(model, policy, graph, {})
    restored = unpack(skeleton, pack(network, shape), signs(network), shape)
    with torch.no_grad():
        expected, found = network(images), restored(images)
    assert float((found - expected).abs().mean()) < 0.02 * float(expected.std())


def test_layers_that_share_weights_part(traced):
    model, graph = traced("resnet20")
    model = copy.deepcopy(model)
    one, two = (model.get_submodule(graph.layers[place].name) for place in (1, 2))
    assert one.weight.shape == two.weight.shape
    two.weight = one.weight
    bits = dict.fromkeys((layer.name for layer in graph.layers), 8)
    policy = Policy({group.name: 0.0 for group in graph.groups}, bits, bits)
    images = torch.randn(32, *graph.input_shape, generator=torch.Generator().manual_seed(0))
    network = compress(model, policy, graph, images).eval()
    with torch.no_grad():
        for place, module in enumerate(network.modules()):
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(0.5 + place % 3)
    skeleton = build_compressed(model, policy, graph, {})
    restored = unpack(skeleton, pack(network, graph.input_shape), signs(network), graph.input_shape)
    with torch.no_grad():
        expected, found = network(images), restored(images)
    assert float((found - expected).abs().mean()) < 0.02 * float(expected.std())
    assert one.weight is two.weight  # the baseline's own stay as they are
