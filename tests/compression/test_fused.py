"""The GPU's quantizer computes what the CPU's does; Triton's interpreter runs it without a GPU."""

import importlib.util
import sys

import pytest
import torch

from seernet.compression import LearnedStep

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def fused():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")  # read when the kernels are declared
        spec = importlib.util.find_spec("seernet.compression.fused")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "fused_in_interpreter", module)
        spec.loader.exec_module(module)
        yield module


def both(fused, x, step, low, high, gradient):
    found = []
    for function in (LearnedStep, fused.FusedStep):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, step)]
        out = function.apply(*leaves, low, high, 0.25)
        out.backward(gradient)
        found.append((out.detach(), *(leaf.grad for leaf in leaves)))
    return zip(*found, strict=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [None, 5])
@pytest.mark.parametrize(("low", "high"), [(-2, 1), (0, 3), (-128, 127), (0, 255)])
def test_values_and_gradients_are_those_of_the_formulas(fused, layout, channels, low, high):
    stream = torch.Generator().manual_seed(0)
    shape = (5, 3, 13, 27)  # more than one block a channel, and the last one not full
    x = torch.randn(shape, generator=stream).to(memory_format=layout)
    gradient = torch.randn(shape, generator=stream)
    steps = 1.5 * torch.rand(channels or 1, generator=stream).add(0.1) / high
    step = steps.view(-1, 1, 1, 1) if channels else steps
    x[0, 0, 0, 0] = 0.5 * steps[0]  # a tie
    x[0, 0, 0, 1] = high * steps[0]  # the edge itself
    results = both(fused, x, step, low, high, gradient)
    for (expected, found), exact in zip(results, (True, True, False), strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, **({"rtol": 0, "atol": 0} if exact else {}))


def test_a_number_that_is_none_stays_visible(fused):
    x = torch.tensor([[1.0, torch.nan]])
    for expected, found in both(fused, x, torch.ones(1), -8, 7, torch.ones(1, 2)):
        torch.testing.assert_close(found, expected, equal_nan=True)


def test_bfloat16_is_computed_in_float32(fused):
    stream = torch.Generator().manual_seed(1)
    x = torch.randn(4, 300, generator=stream).bfloat16()
    step = torch.tensor([0.013])
    gradient = torch.randn(4, 300, generator=stream).bfloat16()
    out, grad_x, _ = (found for _, found in both(fused, x, step, -128, 127, gradient))
    expected = (x.float() / step).clamp(-128, 127).round() * step
    assert out.dtype == grad_x.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=2**-7, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("channels", [None, 48])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_as_on_the_cpu(channels, dtype):
    from seernet.compression.fused import FusedStep

    stream = torch.Generator().manual_seed(2)
    x, gradient = (torch.randn(48, 16, 9, 11, generator=stream).to(dtype) for _ in range(2))
    x = x.to(memory_format=torch.channels_last)
    step = torch.rand(channels or 1, generator=stream).add(0.1).view(-1, 1, 1, 1)
    found = []
    for function, device in ((LearnedStep, "cpu"), (FusedStep, "cuda")):
        exact = x.float() if device == "cpu" else x
        leaves = [t.detach().clone().to(device).requires_grad_() for t in (exact, step)]
        out = function.apply(*leaves, -8, 7, 0.25)
        out.backward(gradient.to(device, out.dtype))
        found.append([t.cpu().float() for t in (out.detach(), *(leaf.grad for leaf in leaves))])
    (out, grad_x, grad_step), (fused_out, fused_grad_x, fused_grad_step) = found
    assert torch.equal(fused_out, out.to(dtype).float())
    assert torch.equal(fused_grad_x, grad_x)
    torch.testing.assert_close(fused_grad_step, grad_step, rtol=1e-4, atol=1e-3)


def test_large_feature_maps_fit_a_grid(fused):
    x = torch.empty(256, 64, 112, 112, device="meta")
    blocks, rows = fused._grid(x, torch.empty(1, device="meta"))
    assert blocks < 2**31
    assert rows < 2**16
    assert blocks * fused.BLOCK >= x.numel()
