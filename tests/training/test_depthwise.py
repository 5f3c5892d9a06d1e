"""The faster kernels give the gradients of the others, to what bfloat16 can tell."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from seernet.training import Classification, Recipe, depthwise, make_optimizer, train_steps
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
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [(3, 2, 1), (5, 1, 1), (5, 2, 1), (1, 2, 1), ((3, 1), (1, 2), 1), (3, 1, 2)],
)
def test_gradients_are_those_of_other_kernels(kernel, stride, dilation, bias):
    torch.manual_seed(0)
    padding = 1 if isinstance(kernel, tuple) else kernel // 2
    layer = nn.Conv2d(8, 8, kernel, stride, padding, dilation, groups=8, bias=bias)
    model = nn.Sequential(layer).to(memory_format=torch.channels_last)
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
        (nn.Conv2d(8, 8, 3, dilation=2, groups=8), True),
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


@pytest.mark.parametrize("shape", [(8, 9, 9), (8, 8, 8)])
def test_single_image_is_left_to_torch(shape):
    layer = nn.Conv2d(8, 8, 3, 2, groups=8)
    with exact_depthwise(layer), torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(shape)).shape[0] == 8


def test_training_steps_take_the_faster_kernels(monkeypatch):
    used = []
    apply = depthwise._Depthwise.apply
    monkeypatch.setattr(depthwise._Depthwise, "apply", lambda *a: used.append(1) or apply(*a))
    layers = [nn.Conv2d(8, 8, 5, 2, groups=8), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    batch = (torch.randn(4, 8, 9, 9), torch.tensor([0, 1, 2, 3]))
    for precision, expected in (("float32", 0), ("bfloat16", 2)):
        model = nn.Sequential(*layers)
        recipe = Recipe(0.1, 0.0, 0.9, 0.0, 2, precision=precision)
        optimizer = make_optimizer(model, recipe)
        train_steps(model, [batch, batch], Classification(), optimizer, recipe)
        assert len(used) == expected


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
