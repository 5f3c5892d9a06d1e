"""A compressed network in the operators of ONNX: quantize, clip, dequantize.

Integer runtimes look for an operation between a dequantizer and a quantizer and run its integer
kernel. They have 8-bit kernels only, so 8-bit containers hold what is narrower: an activation of
b bits is quantized to uint8 and clipped to 2^b - 1 *as an integer* (a clip in float would keep the
convolution from being recognized); weights of b bits are int8.

Signed activations are uint8 around 128. Weights are stretched by a whole number, as far as the
container goes: a bias is a multiple of (input step x weight step), too coarse at few bits to hold
what was trained. Processors without dot-product instructions add two products of uint8 and int8 in
16 bits, which overflows silently where 8 bits meet more than 7: there, weights are stretched to 64
at most, and 8-bit ones are uint8 around 128, for which kernels take a wider sum.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seernet.compression import QuantConv2d, Quantizer, QuantLinear, fold_norms, profile_of

OPSET = 18
MIDDLE = 128  # of uint8: what stands for zero in a signed tensor
WIDEST = 127
WIDEST_PAIR = 64  # weights that two 8-bit inputs can meet in an int16


class QuantizeDequantize(nn.Module):
    """An activation quantizer as ONNX operators.

    Args:
        quantizer: Calibrated.
    """

    scale: Tensor
    zero: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        zero = MIDDLE if quantizer.signed else 0
        self.register_buffer("scale", quantizer.step.detach().float().reshape(()).clone())
        self.register_buffer("zero", torch.tensor(zero, dtype=torch.uint8))
        self.register_buffer("low", torch.tensor(quantizer.low + zero, dtype=torch.uint8))
        self.register_buffer("high", torch.tensor(quantizer.high + zero, dtype=torch.uint8))
        self.clipped = quantizer.bits < 8

    def forward(self, x: Tensor) -> Tensor:
        """Quantize a tensor of any shape."""
        y = _operator("QuantizeLinear", (x, self.scale, self.zero), torch.uint8, x)
        if self.clipped:
            y = _operator("Clip", (y, self.low, self.high), torch.uint8, x)
        return _operator("DequantizeLinear", (y, self.scale, self.zero), torch.float32, x)


class IntegerLayer(nn.Module):
    """A convolution or linear layer whose weights are integers.

    Args:
        layer: A quantized layer, both its quantizers calibrated, its norm folded.
    """

    weight_integers: Tensor
    weight_scale: Tensor
    weight_zero: Tensor
    bias_integers: Tensor
    bias_scale: Tensor

    def __init__(self, layer: QuantConv2d | QuantLinear) -> None:
        super().__init__()
        quantizer, act = layer.weight_quantizer, layer.act_quantizer
        if quantizer is None or act is None:
            raise TypeError("an integer layer needs a quantizer of its weights and of its input")
        self.act = QuantizeDequantize(act)
        integers, step = signed_integers(layer.weight.detach(), quantizer)
        widest = WIDEST if act.bits < 8 else WIDEST_PAIR
        stretch = max(1, widest // max(1, int(integers.abs().max())))
        scale = step / stretch
        integers = integers * stretch
        wide = act.bits == 8 and int(integers.abs().max()) > WIDEST_PAIR
        middle, kind = (MIDDLE, torch.uint8) if wide else (0, torch.int8)
        self.register_buffer("weight_integers", (integers + middle).to(kind))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero", torch.full_like(scale, middle, dtype=kind))
        bias_scale = scale * act.step.detach().float()
        bias = torch.zeros_like(scale) if layer.bias is None else layer.bias.detach().float()
        self.register_buffer("bias_integers", (bias / bias_scale).round().to(torch.int32))
        self.register_buffer("bias_scale", bias_scale)
        self.convolution: tuple[Any, ...] | None = None
        if isinstance(layer, QuantConv2d):
            self.convolution = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer computes."""
        x = self.act(x)
        weight = _restored(self.weight_integers, self.weight_scale, self.weight_zero)
        bias = _restored(self.bias_integers, self.bias_scale)
        if self.convolution is None:
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, *self.convolution)


def signed_integers(weight: Tensor, quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """A weight's integers, int16, and their steps, all positive (a folded norm may negate them).

    At 8 bits the one integer that cannot be negated, -128, is put to its neighbour's value.
    """
    step = quantizer.step.detach().float()
    integers = quantizer.integers(weight).to(torch.int16)
    sign = torch.where(step < 0.0, -1, 1).to(torch.int16)
    integers = integers * sign.view(-1, *[1] * (weight.dim() - 1))
    return integers.clamp(-MIDDLE, WIDEST), step.abs()


def _restored(integers: Tensor, *scale: Tensor) -> Tensor:
    return _operator("DequantizeLinear", (integers, *scale), torch.float32, integers, {"axis": 0})


def _operator(
    name: str,
    inputs: tuple[Tensor, ...],
    dtype: torch.dtype,
    like: Tensor,
    attributes: dict[str, Any] | None = None,
) -> Tensor:
    """An ONNX operator whose output has the shape of `like`."""
    return torch.onnx.ops.symbolic(
        name, inputs, attributes or {}, dtype=dtype, shape=like.shape, version=OPSET
    )


class Deployed(nn.Module):
    """A network that takes images as a camera gives them.

    Args:
        network: Takes normalised images, `n x c x h x w`.
        mean: Of each channel, by which images in [0, 1] are normalised.
        std: The same for the standard deviation.
    """

    image_scale: Tensor
    image_shift: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        middle, spread = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
        self.register_buffer("image_scale", 1.0 / (255.0 * spread))
        self.register_buffer("image_shift", -middle / spread)

    def forward(self, image: Tensor) -> Any:
        """Map uint8 images, `n x h x w x c`, to what the network gives."""
        x = image.permute(0, 3, 1, 2).float() * self.image_scale + self.image_shift
        return self.network(x)


def to_integers(network: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """A copy of a network, norms folded, whose quantized parts are ONNX operators.

    Args:
        network: Compressed and calibrated; one that is not quantized only has its norms folded.
        input_shape: Channels, height and width of one image.
    """
    network = fold_norms(network.cpu(), profile_of(network, input_shape)).eval()
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, QuantConv2d | QuantLinear):
            network.set_submodule(name, _deployed_layer(module))
        elif isinstance(module, Quantizer) and not name.endswith("_quantizer"):
            network.set_submodule(name, QuantizeDequantize(module))
    return network


def _deployed_layer(layer: QuantConv2d | QuantLinear) -> nn.Module:
    zeros = not isinstance(layer, QuantConv2d) or layer.padding_mode == "zeros"
    if layer.weight_quantizer is not None and layer.act_quantizer is not None and zeros:
        return IntegerLayer(layer)
    if layer.weight_quantizer is not None:  # float arithmetic on the restored weights
        with torch.no_grad():
            layer.weight.copy_(layer.weight_quantizer(layer.weight))
        layer.weight_quantizer = None
    if layer.act_quantizer is not None:
        layer.act_quantizer = QuantizeDequantize(layer.act_quantizer)  # type: ignore[assignment]
    return layer
