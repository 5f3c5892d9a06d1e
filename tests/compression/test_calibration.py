"""Calibration: statistics computed by hand, modes kept, every quantizer ready."""

import pytest
import torch
from torch import Tensor, nn

from seernet.compression import (
    calibrate,
    calibration,
    compress,
    quantizers,
    recalibrate_norms,
)
from seernet.errors import ModelError
from seernet.graph import NetworkGraph
from seernet.policy import Policy


def test_statistics_are_those_of_the_images() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=0.2), nn.Dropout(0.5)).train()
    images = 5 + 2 * torch.randn(60, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    recalibrate_norms(model, images)
    norm = model[0]
    values = images.transpose(0, 1).flatten(1).double()
    mean = values.mean(dim=1)
    variance = (values - mean[:, None]).square().sum(dim=1) / (values.shape[1] - 1)
    torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-5, atol=1e-5)
    assert norm.momentum == 0.2


@pytest.mark.parametrize("n", [129, 300])
def test_batches_count_alike(n: int) -> None:
    model = nn.BatchNorm1d(1)
    images = torch.arange(float(n))[:, None]
    recalibrate_norms(model, images)
    # batches of equal size up to one image: the plain mean, within half of an image's share
    assert model.running_mean.item() == pytest.approx((n - 1) / 2, rel=0.01)


def test_networks_without_norms_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recalibrate_norms(model, torch.zeros(2, 3, 4, 4))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_modes_and_momenta_survive_a_failure() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(1, 1)).train()
    model[2].eval()
    with pytest.raises(RuntimeError):
        recalibrate_norms(model, torch.zeros(2, 3, 4, 4))
    assert [m.training for m in model] == [True, True, False]
    assert model[0].momentum == 0.1


def test_calibration_readies_every_quantizer_and_keeps_modes(
    resnet: nn.Module, graph: NetworkGraph, policy: Policy, images: Tensor
) -> None:
    network = compress(resnet, policy, graph).train()
    network.get_submodule("bn").eval()
    with pytest.raises(ModelError, match=r"calibrate\(\)"):
        network(images)
    calibrate(network, images)
    assert all(quantizer.ready and quantizer.enabled for quantizer in quantizers(network))
    assert network.training
    assert not network.get_submodule("bn").training
    assert network.eval()(images).isfinite().all()


def test_calibration_depends_on_the_images_only(
    resnet: nn.Module, graph: NetworkGraph, policy: Policy, images: Tensor
) -> None:
    network = compress(resnet, policy, graph, images)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    calibrate(network, images + 1)
    calibrate(network, images)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], msg=key)


@pytest.mark.parametrize(("ratio", "passes"), [(0.0, 2), (0.01, 2), (0.5, 3)])
def test_statistics_are_estimated_twice_only_if_channels_are_gone(
    monkeypatch: pytest.MonkeyPatch,
    resnet: nn.Module,
    graph: NetworkGraph,
    policy: Policy,
    images: Tensor,
    ratio: float,
    passes: int,
) -> None:
    seen = []
    network = type(resnet)
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    ratios = {graph.groups[0].name: ratio}  # of a few channels 0.01 removes none
    compress(
        resnet,
        Policy(ratios, dict.fromkeys(policy.weight_bits, 32), dict.fromkeys(policy.act_bits, 32)),
        graph,
        images,
    )
    assert [n for n in seen if n == len(images)] == [len(images)] * passes


@pytest.mark.parametrize("n", [2, 3, 5])
def test_no_batch_is_a_single_image(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(calibration, "PIXELS", 1)
    norm = nn.BatchNorm2d(3).eval()
    recalibrate_norms(norm, torch.rand(n, 3, 1, 1))  # of one image there is no variance
    assert norm.running_var.isfinite().all()


def test_steps_follow_the_weights(
    resnet: nn.Module, graph: NetworkGraph, policy: Policy, images: Tensor
) -> None:
    network = compress(resnet, policy, graph, images)
    conv = network.get_submodule("blocks.0.conv1")
    quantized = conv.weight_quantizer(conv.weight)  # type: ignore[operator, union-attr]
    assert (quantized - conv.weight).square().mean() < 0.05 * conv.weight.square().mean()  # type: ignore[operator, union-attr]
