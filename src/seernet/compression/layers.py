"""Layers that quantize their weights and their input."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from seernet.compression.quantizer import Quantizer
from seernet.policy import FULL_BITS


def _quantizer(bits: int, channels: int | None) -> Quantizer | None:
    return Quantizer(bits, channels) if bits < FULL_BITS else None


def _apply(quantizer: Quantizer | None, x: Tensor) -> Tensor:
    out: Tensor = x if quantizer is None else quantizer(x)
    return out


class QuantConv2d(nn.Conv2d):
    """A convolution whose weights and input are quantized; a quantizer of None leaves them."""

    weight_quantizer: Quantizer | None
    act_quantizer: Quantizer | None

    def forward(self, input: Tensor) -> Tensor:
        """Convolve `n x c x h x w`."""
        weight = _apply(self.weight_quantizer, self.weight)
        x = _apply(self.act_quantizer, input)
        return self._conv_forward(x, weight, self.bias)  # type: ignore[no-any-return]


class QuantLinear(nn.Linear):
    """A linear layer whose weights and input are quantized; a quantizer of None leaves them."""

    weight_quantizer: Quantizer | None
    act_quantizer: Quantizer | None

    def forward(self, input: Tensor) -> Tensor:
        """Map `... x in` to `... x out`."""
        weight = _apply(self.weight_quantizer, self.weight)
        return F.linear(_apply(self.act_quantizer, input), weight, self.bias)


def quantized(layer: nn.Module, weight_bits: int, act_bits: int) -> nn.Module:
    """A quantized layer that takes over the parameters of `layer`.

    Args:
        layer: A `Conv2d` or `Linear`.
        weight_bits: Bit-width of the weights; 32 leaves them.
        act_bits: Bit-width of the input; 32 leaves it.
    """
    options: dict[str, Any] = {"bias": layer.bias is not None, "device": "meta"}
    new: QuantConv2d | QuantLinear
    if isinstance(layer, nn.Conv2d):
        new = QuantConv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            padding_mode=layer.padding_mode,
            **options,
        )
    elif isinstance(layer, nn.Linear):
        new = QuantLinear(layer.in_features, layer.out_features, **options)
    else:
        raise TypeError(f"{type(layer).__name__} cannot be quantized")
    new.weight, new.bias = layer.weight, layer.bias  # type: ignore[assignment]
    new.weight_quantizer = _quantizer(weight_bits, layer.weight.shape[0])
    new.act_quantizer = _quantizer(act_bits, None)
    return new.train(layer.training)
