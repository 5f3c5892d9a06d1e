"""The quantizer: its grid, its published gradients by hand, and its first step."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seernet.compression import LearnedStep, Quantizer
from seernet.errors import ModelError


def calibrated(x: Tensor, bits: int, channels: int | None = None) -> Quantizer:
    quantizer = Quantizer(bits, channels)
    quantizer.observe(True)
    quantizer(x)
    quantizer.observe(False)
    return quantizer


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 8),
    signed=st.booleans(),
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_values_lie_on_the_grid(bits: int, signed: bool, shape: list[int], seed: int) -> None:
    x = noise(*shape, seed=seed)
    x = x if signed else x.abs()
    quantizer = calibrated(x, bits)
    out = quantizer(3 * x).detach()
    ratio = (out / quantizer.step.detach()).double()
    assert (ratio - ratio.round()).abs().max() < 1e-3
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if x.min() < 0 else (0, 2**bits - 1)
    assert ratio.round().min() >= lowest
    assert ratio.round().max() <= highest
    assert len(out.unique()) <= 2**bits


@settings(max_examples=30, deadline=None)
@given(bits=st.integers(2, 8), channels=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_weights_take_few_values_in_each_channel(bits: int, channels: int, seed: int) -> None:
    weight = noise(channels, 7, 3, 3, seed=seed) * torch.arange(1, channels + 1).view(-1, 1, 1, 1)
    quantizer = calibrated(weight, bits, channels)
    assert all(len(row.unique()) <= 2**bits for row in quantizer(weight).detach())
    assert quantizer.step.shape == (channels,)


def test_gradients_by_hand() -> None:
    # signed 3 bits: integers -4 .. 3; step 0.5, so the ends lie at -2 and 1.5
    x = torch.tensor([-5.0, -2.0, -0.3, 0.0, 0.6, 1.5, 9.0], requires_grad=True)
    step = torch.tensor([0.5], requires_grad=True)
    out = LearnedStep.apply(x, step, -4, 3, 1.0)
    assert out.tolist() == [-2.0, -2.0, -0.5, 0.0, 0.5, 1.5, 1.5]
    gradients = torch.tensor([1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6])
    out.backward(gradients)
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0, 100.0, 1e3, 1e4, 0.0, 0.0]
    # of the step: -Q_N, -Q_N, round - x/s = -1 + 0.6, 0, 1 - 1.2, Q_P, Q_P
    slopes = torch.tensor([-4.0, -4.0, -0.4, 0.0, -0.2, 3.0, 3.0])
    assert step.grad is not None
    assert step.grad.item() == pytest.approx(float((slopes * gradients).sum()))


def test_gradient_of_each_channels_step_is_its_own() -> None:
    x = torch.tensor([[5.0, 0.3], [0.3, 0.3]])
    step = torch.tensor([[1.0], [0.25]], requires_grad=True)
    LearnedStep.apply(x, step, 0, 3, 0.5).sum().backward()
    assert step.grad is not None
    # row 0: 3 and 0 - 0.3; row 1: twice 1 - 1.2; scaled by one half
    assert step.grad.flatten().tolist() == pytest.approx([1.35, -0.2])


@pytest.mark.parametrize(("channels", "elements"), [(None, 12), (5, 12)])
def test_gradient_scale_of_the_step(channels: int | None, elements: int) -> None:
    x = noise(5, 3, 2, 2)
    quantizer = calibrated(x, 4, channels)
    quantizer(torch.full_like(x, 1e6)).sum().backward()
    assert quantizer.step.grad is not None
    # all saturate: each of N elements gives Q_P = 7, times 1 / sqrt(N * 7); one image or channel
    each = elements * 7 / math.sqrt(elements * 7)
    total = each if channels else 5 * each
    assert quantizer.step.grad.tolist() == pytest.approx([total] * (channels or 1))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_first_step_is_nearly_the_best(bits: int, signed: bool) -> None:
    x = noise(20_000) if signed else noise(20_000).relu()
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)

    def error(step: float) -> float:
        return float((x - torch.clamp(torch.round(x / step), low, high) * step).square().mean())

    best = min(error(float(x.abs().max()) * k / 2000 / high) for k in range(20, 4000, 4))
    assert error(calibrated(x[None], bits).step.item()) <= 1.2 * best


def test_first_step_sees_all_columns() -> None:
    # 2 x 16 x 64 x 64 values, more than are sampled; the left column alone is small
    x = noise(2, 16, 64, 64)
    x[..., 0] *= 1e-3
    whole = calibrated(noise(1, 30_000), 4).step.item()
    assert calibrated(x, 4).step.item() == pytest.approx(whole, rel=0.2)


def test_channel_of_zeros_can_still_learn() -> None:
    weight = noise(3, 10)
    weight[1] = 0.0
    quantizer = calibrated(weight, 4, 3)
    assert quantizer.step[1].item() == pytest.approx(
        weight.abs().max().item() / 7
    )  # of the largest row
    assert (calibrated(torch.zeros(2, 4), 4).step > 1e-3).all()


@pytest.mark.parametrize(("x", "signed"), [([-1e-3, 1.0], True), ([0.0, 1.0], False)])
def test_signed_only_where_negative_values_come(x: list[float], signed: bool) -> None:
    assert calibrated(torch.tensor([x]), 4).signed is signed


def test_weights_are_signed_always() -> None:
    assert calibrated(torch.ones(2, 3), 4, channels=2).signed


def test_shared_quantizer_learns_from_all_it_meets() -> None:
    quantizer = Quantizer(4)
    quantizer.observe(True)
    quantizer(torch.tensor([[-8.0, 7.0]]))
    quantizer(torch.tensor([[0.5, 1.0]]))
    quantizer.observe(False)
    assert quantizer.signed
    assert quantizer(torch.tensor([[-8.0, 7.0]])).tolist()[0] == pytest.approx([-8.0, 7.0], rel=0.2)


@pytest.mark.parametrize("signed", [True, False])
def test_state_dict_keeps_signedness_and_readiness(signed: bool) -> None:
    x = noise(4, 5) if signed else noise(4, 5).abs()
    quantizer = calibrated(x, 3)
    other = Quantizer(3)
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(x), quantizer(x))
    assert other.signed is signed


def test_integers_stand_for_the_values() -> None:
    x = noise(3, 8)
    for quantizer in (calibrated(x, 8), calibrated(x, 3, channels=3)):
        step = quantizer.step.detach().view(-1, 1)
        assert quantizer.integers(x).dtype == torch.int8
        torch.testing.assert_close(quantizer.integers(x) * step, quantizer(x).detach())
    unsigned = calibrated(x.abs(), 8).integers(x.abs())
    assert unsigned.dtype == torch.uint8
    assert unsigned.max() > 127


def test_use_before_calibration_is_refused() -> None:
    with pytest.raises(ModelError, match=r"without a step size.*calibrate\(\)"):
        Quantizer(4)(torch.ones(1, 2))


def test_switched_off_it_changes_nothing() -> None:
    quantizer = Quantizer(4)
    quantizer.enabled = False
    x = noise(2, 3)
    assert quantizer(x) is x


def test_nothing_to_observe_sets_nothing() -> None:
    quantizer = Quantizer(4)
    quantizer.observe(True)
    quantizer(torch.zeros(0, 3, 4, 4))
    assert not quantizer.ready
    quantizer(noise(2, 3, 4, 4))
    assert quantizer.ready
