"""The learned-step quantizer on a GPU: one pass over memory each way, where torch needs nine.

The formulas are those of `quantizer`, always computed in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
ROUNDING = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it leaves no bits for a fraction


@triton.jit  # type: ignore[untyped-decorator]
def _rounded(scaled, low, high):  # type: ignore[no-untyped-def]
    """Clip, then round to the nearest integer, ties to even; not-a-number stays."""
    clipped = tl.minimum(tl.maximum(scaled, low), high)
    rounded = (clipped + ROUNDING) - ROUNDING
    return tl.where(scaled == scaled, rounded, scaled)


@triton.jit  # type: ignore[untyped-decorator]
def _add(a, b):  # type: ignore[no-untyped-def]
    return a + b


@triton.jit  # type: ignore[untyped-decorator]
def _forward(x, step, out, columns, low, high, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(1)
    column = tl.program_id(0) * block + tl.arange(0, block)
    inside = column < columns
    at = row.to(tl.int64) * columns + column
    size = tl.load(step + row)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    found = _rounded(tl.div_rn(value, size), low, high) * size
    tl.store(out + at, found.to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _backward(  # type: ignore[no-untyped-def]
    gradient, x, step, gradient_x, slopes, columns, low, high, block: tl.constexpr
):
    row = tl.program_id(1)
    part = tl.program_id(0)
    column = part * block + tl.arange(0, block)
    inside = column < columns
    at = row.to(tl.int64) * columns + column
    size = tl.load(step + row)
    scaled = tl.div_rn(tl.load(x + at, mask=inside, other=0.0).to(tl.float32), size)
    above = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    passed = tl.where((scaled <= low) | (scaled >= high), 0.0, above)
    slope = above * _rounded(scaled, low, high) - passed * scaled
    tl.store(gradient_x + at, passed.to(gradient_x.dtype.element_ty), mask=inside)
    tl.store(slopes + row * tl.num_programs(0) + part, tl.reduce(slope, 0, _add))


class FusedStep(torch.autograd.Function):
    """What `LearnedStep` computes, with the same arguments; the step is float32."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, step: Tensor, low: int, high: int, gradient_scale: float
    ) -> Tensor:
        """Quantize `x`; `step` has one element, or one for each slice of the first dimension."""
        x, step = _dense(x), step.contiguous()
        ctx.save_for_backward(x, step)
        ctx.constants = (low, high, gradient_scale)
        out = torch.empty_like(x)
        _forward[_grid(x, step)](x, step, out, _columns(x, step), float(low), float(high), BLOCK)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and of the step."""
        x, step = ctx.saved_tensors
        low, high, gradient_scale = ctx.constants
        gradient = gradients[0].contiguous(memory_format=_layout(x))
        gradient_x = torch.empty_like(x)
        grid = _grid(x, step)
        slopes = torch.empty(grid[::-1], dtype=torch.float32, device=x.device)
        _backward[grid](
            gradient,
            x,
            step,
            gradient_x,
            slopes,
            _columns(x, step),
            float(low),
            float(high),
            BLOCK,
        )
        gradient_step = slopes.sum(1).mul_(gradient_scale).view(step.shape)
        return gradient_x, gradient_step, None, None, None


def _layout(x: Tensor) -> torch.memory_format:
    """The layout in which a tensor lies without gaps, or can be copied to do so."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=_layout(x))


def _columns(x: Tensor, step: Tensor) -> int:
    return x.numel() // step.numel()


def _grid(x: Tensor, step: Tensor) -> tuple[int, int]:
    """Blocks of a row, then rows: only the first of a grid's dimensions may exceed 65,535."""
    return triton.cdiv(_columns(x, step), BLOCK), step.numel()
