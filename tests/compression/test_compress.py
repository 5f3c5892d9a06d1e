"""Compression: the original stays, the new network is smaller, and costs what the model says."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seernet.compression import Quantizer, compress, count, kept_channels, quantizers
from seernet.compression.layers import QuantConv2d, QuantLinear
from seernet.config import SpaceConfig
from seernet.errors import PolicyError
from seernet.graph import NetworkGraph
from seernet.models import trace
from seernet.policy import CostModel, Policy, SearchSpace

# By name and arguments; grouped bottlenecks are narrow, their couplings being those of wide ones.
ZOO: dict[str, tuple[str, dict[str, int]]] = {
    "resnet20": ("resnet20", {}),
    "vgg_small": ("vgg_small", {}),
    "resnet18": ("torchvision:resnet18", {}),
    "resnet50": ("torchvision:resnet50", {}),
    "mobilenet_v2": ("torchvision:mobilenet_v2", {}),
    "mobilenet_v3_small": ("torchvision:mobilenet_v3_small", {}),
    "densenet121": ("torchvision:densenet121", {}),
    "resnext50": ("torchvision:resnet50", {"groups": 32, "width_per_group": 2}),
}


def uniform(graph: NetworkGraph, ratio: float, bits: int) -> Policy:
    names = {x.name: bits for x in graph.layers}
    return Policy({g.name: ratio for g in graph.groups}, names, names)


@pytest.mark.parametrize(("name", "arguments"), ZOO.values(), ids=ZOO)
def test_networks_compress_exactly(
    traced: Callable[..., tuple[nn.Module, NetworkGraph]], name: str, arguments: dict[str, int]
) -> None:
    shape = (3, 32, 32)
    model, graph = traced(name, **arguments)
    cost = CostModel(SearchSpace(graph, SpaceConfig()))
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():  # at 32 bits and unpruned, nothing changes
        same = compress(model, uniform(graph, 0.0, 32), graph)
        torch.testing.assert_close(same(image), model(image))

    # a deep network is costed once, small ones thrice
    draws = 1 if name.startswith("torchvision:") else 3
    u = torch.rand(draws, cost.space.dimension, generator=torch.Generator().manual_seed(0))
    for policy in cost.space.decode(u.double()):
        costs = cost(cost.space.encode([policy]))
        counted = count(compress(model, policy, graph), shape)
        assert counted.bops == costs.bops.item()
        assert counted.macs == costs.macs.item()
        assert counted.parameters == costs.parameters.item()
        assert counted.size_bytes == costs.size_bytes.ceil().item()
        floats = replace(
            policy,
            weight_bits=dict.fromkeys(policy.weight_bits, 32),
            act_bits=dict.fromkeys(policy.act_bits, 32),
        )
        pruned = compress(model, floats, graph)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            pruned(image[:1])
        assert counter.get_total_flops() / 2 == counted.macs


def test_attention_is_counted_at_32_bits() -> None:
    model = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32,
        num_classes=10,
    ).eval()  # fmt: skip
    graph = trace(model, (3, 32, 32))
    cost = CostModel(SearchSpace(graph, SpaceConfig()))
    (policy,) = cost.space.decode(torch.full((1, cost.space.dimension), 0.4).double())
    network = compress(model, policy, graph, torch.randn(4, 3, 32, 32))
    costs, counted = cost(cost.space.encode([policy])), count(network, (3, 32, 32))
    assert (counted.bops, counted.macs) == (costs.bops.item(), costs.macs.item())
    assert counted.parameters == costs.parameters.item()
    assert counted.size_bytes == costs.size_bytes.ceil().item()
    # two attentions of 17 tokens: projections and two products, at 32 x 32 bits
    assert counted.bops > 2 * (17 * 16 * 64 + 2 * 17 * 17 * 16) * 1024
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_baseline_counts_as_the_cost_model_says(resnet: nn.Module, graph: NetworkGraph) -> None:
    baseline = CostModel(SearchSpace(graph, SpaceConfig())).baseline()
    counted = count(resnet, graph.input_shape)
    assert (counted.bops, counted.size_bytes) == (baseline.bops.item(), baseline.size_bytes.item())


def test_count_leaves_the_network_as_it_was(
    resnet: nn.Module, graph: NetworkGraph, policy: Policy
) -> None:
    network = compress(resnet, policy, graph).train()
    network.get_submodule("bn").eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    count(network, graph.input_shape)
    assert network.training
    assert not network.get_submodule("bn").training
    assert all(quantizer.enabled for quantizer in quantizers(network))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_original_is_untouched(
    resnet: nn.Module, graph: NetworkGraph, policy: Policy, images: Tensor
) -> None:
    before = copy.deepcopy(resnet.state_dict())
    network = compress(resnet, policy, graph, images).train()
    network(images).sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    after = resnet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(p.grad is None for p in resnet.parameters())
    assert not resnet.training
    assert not quantizers(resnet)


@pytest.fixture(scope="module")
def compressed(resnet: nn.Module, graph: NetworkGraph, policy: Policy, images: Tensor) -> nn.Module:
    """The compressed and calibrated network; not to be changed."""
    return compress(resnet, policy, graph, images)


def test_network_is_physically_smaller(compressed: nn.Module, images: Tensor) -> None:
    network = compressed
    assert network.get_submodule("conv").weight.shape == (4, 3, 3, 3)
    assert network.get_submodule("blocks.8.conv2").weight.shape == (16, 16, 3, 3)
    assert network.get_submodule("fc").weight.shape == (10, 16)
    assert network(images).shape == (40, 10)


def test_all_layers_carry_their_bits(
    resnet: nn.Module, graph: NetworkGraph, policy: Policy
) -> None:
    network = compress(resnet, policy, graph)
    for layer in graph.layers:
        module = network.get_submodule(layer.name)
        assert isinstance(module, QuantConv2d | QuantLinear)
        assert module.weight_quantizer is not None
        bits = 8 if layer.edge else 4
        assert module.weight_quantizer.bits == module.act_quantizer.bits == bits


def test_maps_of_resnet20_are_stored_in_eight_bits(
    resnet: nn.Module, graph: NetworkGraph, policy: Policy
) -> None:
    network = compress(resnet, policy, graph)
    maps = [m for name, m in network.named_children() if isinstance(m, Quantizer)]
    assert [stored.bits for stored in maps] == [8] * 21
    assert len(quantizers(network)) == 21 + 2 * len(graph.layers)


def test_largest_channels_stay() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 4.0, 2.0, 3.0]).view(4, 1, 1, 1))
        model[3].weight.copy_(torch.tensor([9.0, 1.0, 1.0, 1.0]))
    graph = trace(model, (3, 4, 4))
    policy = uniform(graph, 0.5, 32)
    # energies, each tensor scaled to mean 1: 1, 16, 4, 9 over 7.5; 81, 1, 1, 1 over 21
    assert kept_channels(model, policy, graph)["0"].tolist() == [True, True, False, False]


def test_compressed_network_can_be_copied(
    compressed: nn.Module, graph: NetworkGraph, images: Tensor
) -> None:
    network = compressed
    twin = copy.deepcopy(network)
    assert torch.equal(twin(images), network(images))
    assert count(twin, graph.input_shape) == count(network, graph.input_shape)
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert not torch.equal(twin(images), network(images))


def test_state_dict_restores_the_network(
    compressed: nn.Module, resnet: nn.Module, graph: NetworkGraph, policy: Policy, images: Tensor
) -> None:
    network = compressed
    other = compress(resnet, policy, graph).eval()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(images), network(images))


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_that_of_the_model(
    resnet: nn.Module, graph: NetworkGraph, policy: Policy, images: Tensor, training: bool
) -> None:
    model = copy.deepcopy(resnet).train(training)
    network = compress(model, policy, graph, images)
    assert {module.training for module in network.modules()} == {training}
    assert {module.training for module in model.modules()} == {training}


def test_channels_last_gives_the_same(
    compressed: nn.Module, resnet: nn.Module, graph: NetworkGraph, policy: Policy, images: Tensor
) -> None:
    model = copy.deepcopy(resnet).to(memory_format=torch.channels_last)
    last = images.contiguous(memory_format=torch.channels_last)
    network = compress(model, policy, graph).eval()
    network.load_state_dict(compressed.state_dict())
    torch.testing.assert_close(network(last), compressed(images), rtol=1e-3, atol=0.05)


def test_every_parameter_learns(
    resnet: nn.Module, graph: NetworkGraph, policy: Policy, images: Tensor
) -> None:
    network = compress(resnet, policy, graph, images).train()
    network(images).square().sum().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


class Shared(nn.Module):
    """One convolution under two names, called twice."""

    def __init__(self, choose: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.one = nn.Conv2d(4, 4, 3, padding=1)
        self.two = self.one
        self.fc = nn.Linear(4, 10)
        self.choose = choose

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.two(self.one(x)) if self.choose(x) else x
        return self.fc(x.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("choose", "warned"),
    [(lambda x: True, False), (lambda x: bool(x.isfinite().all()), True)],
    ids=["traceable", "untraceable"],
)
def test_layer_of_two_names_is_quantized_under_both(
    choose: Callable[[Tensor], bool], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = Shared(choose).eval()
    graph = trace(model, (3, 8, 8))
    images = torch.randn(8, 3, 8, 8)
    network = compress(model, uniform(graph, 0.0, 3), graph, images)
    assert ("stay unquantized" in caplog.text) is warned
    assert not [m for m in network.modules() if type(m) in (nn.Conv2d, nn.Linear)]
    assert network(images).shape == (8, 10)
    # stem 3*4*9*64, shared layer twice 4*4*9*64, linear 40, all at 3 x 3 bits
    expected = 9 * (3 * 4 * 9 * 64 + 2 * 4 * 4 * 9 * 64 + 40)
    assert count(network, (3, 8, 8)).bops == expected


def test_unfolded_norm_without_parameters_is_counted() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4, affine=False), nn.PReLU(4),
        nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(32, 2),
    )  # fmt: skip
    graph = trace(model, (3, 4, 4))
    cost = CostModel(SearchSpace(graph, SpaceConfig()))
    (policy,) = cost.space.decode(torch.zeros(1, cost.space.dimension).double())
    costs = cost(cost.space.encode([policy]))
    counted = count(compress(model, policy, graph), (3, 4, 4))
    # one channel stays in each group: 3 + 1, scale and shift 2, slope 1, 1 + 1, 16 * 2 + 2
    assert counted.parameters == costs.parameters.item() == 4 + 2 + 1 + 2 + 34
    assert counted.size_bytes == costs.size_bytes.ceil().item()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_bits": {}}, "weight_bits.*another network"),
        ({"pruning_ratio": {"alien": 0.5}}, "alien.*another network"),
        ({"pruning_ratio": {"conv": 1.0}}, r"lie in \[0, 1\).*1\.0"),
        ({"pruning_ratio": {"conv": -0.1}}, r"lie in \[0, 1\).*-0\.1"),
        ({"pruning_ratio": {"conv": float("nan")}}, r"lie in \[0, 1\).*nan"),
    ],
)
def test_policy_of_another_network_is_refused(
    resnet: nn.Module, graph: NetworkGraph, policy: Policy, change: dict[str, object], message: str
) -> None:
    with pytest.raises(PolicyError, match=message):
        compress(resnet, replace(policy, **change), graph)


@pytest.mark.parametrize("bits", [1, 9, 16, 0])
def test_bits_that_no_quantizer_has_are_refused(
    resnet: nn.Module, graph: NetworkGraph, bits: int
) -> None:
    with pytest.raises(PolicyError, match=f"is {bits}; it must be 2 to 8, or 32"):
        compress(resnet, uniform(graph, 0.0, bits), graph)
