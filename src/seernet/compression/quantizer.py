"""Fake quantization with a learned step size (LSQ).

    q(x) = s * round(clip(x / s, -Q_N, Q_P))

with Q_N = 2^(b-1), Q_P = 2^(b-1) - 1 for signed and Q_N = 0, Q_P = 2^b - 1 for unsigned tensors.
Its gradient passes straight through the rounding:

    dq/dx = 1 where -Q_N < x/s < Q_P, else 0
    dq/ds = round(x/s) - x/s inside, -Q_N below, Q_P above

and the gradient of s is scaled by 1 / sqrt(N * Q_P), N the elements that share s (of one image, for
activations), so that s learns about as fast, relative to its size, as the weights do.

Source:
    Esser et al. (2020), Learned Step Size Quantization, eq. 1 to 5 and sec. 2.2. We deviate in two
    points: weights have one step an output channel, and steps start where the squared error of
    the tensor is smallest instead of at 2 <|x|> / sqrt(Q_P).
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from seernet.errors import ModelError

_CANDIDATES = 24
_SAMPLE = 1 << 15
_FUSES = find_spec("triton") is not None


class LearnedStep(torch.autograd.Function):
    """The quantizer's function and its published gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, step: Tensor, low: int, high: int, gradient_scale: float
    ) -> Tensor:
        """Quantize `x` (any shape); `step` broadcasts against it."""
        scaled = x / step
        rounded = scaled.clamp(low, high).round_()
        ctx.save_for_backward(scaled, rounded)
        ctx.constants = (low, high, gradient_scale, step.shape)
        return rounded * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and of the step, in few passes over memory.

        hardtanh's backward is the straight-through mask: zero at and beyond both ends. With it,
        the step's gradient is <g, round(x/s)> - <g masked, x/s>.
        """
        (gradient,) = gradients
        scaled, rounded = ctx.saved_tensors
        low, high, gradient_scale, shape = ctx.constants
        gradient_x = torch.ops.aten.hardtanh_backward(gradient, scaled, low, high)
        gradient_step = None
        if ctx.needs_input_grad[1]:
            slope = gradient * rounded
            slope.addcmul_(gradient_x, scaled, value=-1.0)
            gradient_step = slope.sum_to_size(shape).mul_(gradient_scale)
        return gradient_x, gradient_step, None, None, None


class Quantizer(nn.Module):
    """Quantizes one tensor to `bits`.

    Before use it must see the tensor once between `observe(True)` and `observe(False)`: that sets
    whether it is signed, and the first step sizes.

    Args:
        bits: Bit-width, 2 to 8.
        channels: For weights, the number of output channels, each with its own step; for
            activations None.
    """

    learns_step = True
    """Whether `step` is a step size, by which training knows it."""

    def __init__(self, bits: int, channels: int | None = None) -> None:
        super().__init__()
        self.bits = bits
        self.channels = channels
        self.signed = True
        self.ready = False
        self.enabled = True
        self._seen: list[Tensor] | None = None  # what reached it while it observes
        self.step = nn.Parameter(torch.ones(channels if channels is not None else 1))

    @property
    def low(self) -> int:
        """Smallest integer, -Q_N."""
        return -(2 ** (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest integer, Q_P."""
        return int(2 ** (self.bits - self.signed) - 1)

    def observe(self, on: bool) -> None:
        """Begin or end a pass that sets signedness and step from all tensors it meets."""
        self._seen = [] if on else None

    def forward(self, x: Tensor) -> Tensor:
        """Quantize a tensor; weights have their output channels first, activations images."""
        if not self.enabled:
            return x
        if self._seen is not None:
            self._observe(x.detach(), self._seen)
        elif not self.ready:
            raise ModelError(
                "a quantizer without a step size is used; call calibrate() on the network first, "
                "with images that reach all of it."
            )
        step: Tensor = self.step
        if self.channels is not None:
            step = step.view(-1, *[1] * (x.dim() - 1))
        shared = math.prod(x.shape[1:])  # the batch may be empty: no region was proposed
        scale = (shared * self.high) ** -0.5
        return _quantize(x, step, self.low, self.high, scale)

    def integers(self, x: Tensor) -> Tensor:
        """The integers that stand for `x`, as int8 (signed) or uint8."""
        shape = (-1, *[1] * (x.dim() - 1)) if self.channels is not None else (1,)
        value = (x / self.step.view(shape)).clamp(self.low, self.high).round()
        return value.to(torch.int8 if self.signed else torch.uint8)

    def _observe(self, x: Tensor, seen: list[Tensor]) -> None:
        if self.channels is not None:
            rows: Tensor = x.flatten(1)
        elif not len(x):
            return  # no region was proposed
        else:
            negative = bool(x.min() < 0)
            self.signed = negative or (bool(seen) and self.signed)  # a shared layer meets several
            seen.append(_sample(x.flatten()))
            rows = torch.cat(seen)[None]
        with torch.no_grad():
            self.step.copy_(_least_squares_step(rows.float(), self.low, self.high))
        self.ready = True

    def get_extra_state(self) -> Tensor:
        """What a state dict must hold beside the step: whether it is signed, and calibrated."""
        return torch.tensor([self.signed, self.ready])

    def set_extra_state(self, state: Tensor) -> None:
        """Take up what `get_extra_state` gave."""
        self.signed, self.ready = (bool(flag) for flag in state)


def _quantize(x: Tensor, step: Tensor, low: int, high: int, gradient_scale: float) -> Tensor:
    """The learned-step quantizer; on a GPU fused, where Triton is installed."""
    out: Tensor
    if x.is_cuda and _FUSES and x.dtype != torch.float64:  # which fused would lose digits
        from seernet.compression.fused import FusedStep

        out = FusedStep.apply(x, step, low, high, gradient_scale)
    else:
        out = LearnedStep.apply(x, step.to(x.dtype), low, high, gradient_scale)
    return out


def _sample(values: Tensor) -> Tensor:
    """At most 2^15 values, drawn evenly but without the period of rows and columns."""
    if len(values) <= _SAMPLE:
        return values
    index = torch.randint(len(values), (_SAMPLE,), generator=torch.Generator().manual_seed(0))
    return values[index.to(values.device)]


def _least_squares_step(rows: Tensor, low: int, high: int) -> Tensor:
    """For each row (`n x elements`) the step of least squared error, from a geometric grid."""
    largest = rows.abs().amax(dim=1)
    # A step near zero could never be learned away: all-zero rows start like the largest one.
    largest = torch.where(largest > 0, largest, largest.amax())
    largest = torch.where(largest > 0, largest, 1.0)
    empty = rows.abs().amax(dim=1) == 0
    best = largest / high
    least = torch.full_like(best, torch.inf)
    for fraction in torch.logspace(-1.3, 0.1, _CANDIDATES).tolist():
        step = (largest * fraction / high)[:, None]
        error = (rows - (rows / step).clamp_(low, high).round_().mul_(step)).square_().sum(dim=1)
        better = (error < least) & ~empty
        least = torch.where(better, error, least)
        best = torch.where(better, step[:, 0], best)
    return best
