"""Gradients of depthwise convolutions in bfloat16 on a CPU.

oneDNN has fast kernels for two of them: the input's at stride 1, and the weights' of 3 x 3 without
dilation. The others take up to 50 times as long as in float32 (torch 2.15, Zen 4): a quarter of
the time that training a MobileNetV2 takes. Here they are computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from seernet.models import is_depthwise

_FAST_KERNEL = (3, 3)
_TYPES = {torch.float32, torch.bfloat16}


def exact_depthwise(model: nn.Module) -> AbstractContextManager[Any]:
    """Within it, a training step under bfloat16 autocast takes the faster kernels.

    Args:
        model: What is trained, on its device; nothing changes on a GPU, and for networks without
            such convolutions.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    return _Mode() if on_cpu and any(map(_is_slow, model.modules())) else nullcontext()


def _is_slow(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and is_depthwise(layer)
        and any(_slow(layer.kernel_size, layer.stride, layer.dilation))
    )


def _slow(
    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[bool, bool]:
    """Whether the gradients of the input and of the weights are slow in bfloat16."""
    return max(stride) > 1, tuple(kernel) != _FAST_KERNEL or max(dilation) > 1


class _Mode(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d and not kwargs and len(args) == 7 and torch.is_grad_enabled():
            x, weight, bias, stride, padding, dilation, groups = args
            sizes = (stride, padding, dilation)
            if (
                groups > 1
                and x.dim() == 4
                and groups == x.shape[1] == weight.shape[0]
                and {x.dtype, weight.dtype} <= _TYPES
                and all(isinstance(size, tuple) for size in sizes)
                and any(_slow(weight.shape[2:], stride, dilation))
                and torch.is_autocast_enabled("cpu")
                and torch.get_autocast_dtype("cpu") == torch.bfloat16
            ):
                given = [None if t is None else t.to(torch.bfloat16) for t in (x, weight, bias)]
                return _Depthwise.apply(*given, *map(list, sizes))
        return func(*args, **(kwargs or {}))


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution in bfloat16; the gradients' slow kernels run in float32."""

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
    ) -> Tensor:
        return torch.convolution(
            x, weight, bias, stride, padding, dilation, False, [0, 0], len(weight)
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
        x, weight, _, *ctx.sizes = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        stride, _, dilation = ctx.sizes
        slow = _slow(weight.shape[2:], stride, dilation)
        found = {}
        for exact in (False, True):
            wanted = [ctx.needs_input_grad[i] and slow[i] is exact for i in range(2)]
            if any(wanted):
                given = [t.float() if exact else t for t in (gradient, x, weight)]
                parts = torch.ops.aten.convolution_backward(
                    *given, None, *ctx.sizes, False, [0, 0], len(weight), [*wanted, False]
                )
                found.update({i: parts[i].to(x.dtype) for i in range(2) if wanted[i]})
        of_bias = gradient.float().sum((0, 2, 3)).to(x.dtype) if ctx.needs_input_grad[2] else None
        return found.get(0), found.get(1), of_bias, None, None, None
