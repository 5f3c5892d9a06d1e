"""The faster kernels give the gradients of the others, to what bfloat16 can tell."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from seernet.training.depthwise import exact_depthwise


def trained(model, images, exact):
    """Gradients after one bfloat16 step, and the outputs."""
    model, images = copy.deepcopy(model), images.clone().requires_grad_()
    replaced = exact_depthwise(model) if exact else nullcontext()
    with replaced, torch.autocast("cpu", torch.bfloat16):
        out = model(images)
    out.float().square().sum().backward()
    return out, [images.grad, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 1), (5, 2), (1, 2), ((3, 1), (1, 2))])
def test_gradients_are_those_of_other_kernels(kernel, stride, bias):
    torch.manual_seed(0)
    padding = 1 if isinstance(kernel, tuple) else kernel // 2
    model = nn.Sequential(nn.Conv2d(8, 8, kernel, stride, padding, groups=8, bias=bias))
    images = torch.randn(4, 8, 9, 9)
    (out, found), (expected_out, expected) = (trained(model, images, e) for e in (True, False))
    torch.testing.assert_close(out, expected_out, rtol=0.0, atol=0.0)
    assert len(found) == 2 + bias
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.02 * float(b.abs().max()))


def nodes(function):
    seen, left = set(), [function]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [following for following, _ in node.next_functions]
    return {type(node).__name__ for node in seen}


@pytest.mark.parametrize(
    ("layer", "changed"),
    [
        (nn.Conv2d(8, 8, 3, 2, groups=8), True),
        (nn.Conv2d(8, 8, 5, padding="same", groups=8), False),  # rare: left to torch
        (nn.Conv2d(8, 8, 3, groups=8), False),
        (nn.Conv2d(8, 8, 3, 2, groups=4), False),
        (nn.Conv2d(8, 16, 3, 2, groups=8), False),
        (nn.Conv2d(8, 8, 3, 2), False),
    ],
)
def test_only_slow_kernels_are_replaced(layer, changed):
    slow = nn.Conv2d(8, 8, 5, groups=8)  # there is one, so that others are looked at
    with exact_depthwise(nn.ModuleList([layer, slow])), torch.autocast("cpu", torch.bfloat16):
        out = layer(torch.randn(2, 8, 9, 9))
    assert ("_DepthwiseBackward" in nodes(out.grad_fn)) is changed


def test_float32_is_left_alone():
    layer = nn.Conv2d(8, 8, 3, 2, groups=8)
    with exact_depthwise(layer):
        out = layer(torch.randn(2, 8, 9, 9))
    assert "_DepthwiseBackward" not in nodes(out.grad_fn)


def test_frozen_layer_gets_no_gradient():
    layer = nn.Conv2d(8, 8, 5, 2, groups=8).requires_grad_(False)
    images = torch.randn(2, 8, 9, 9, requires_grad=True)
    with exact_depthwise(layer), torch.autocast("cpu", torch.bfloat16):
        layer(images).sum().backward()
    assert images.grad is not None and layer.weight.grad is None
