"""A compressed network in the operators of ONNX: quantize, clip, dequantize.

Integer runtimes look for an operation between a dequantizer and a quantizer and run its integer
kernel. They have 8-bit kernels only, so bytes hold what is narrower; see `evaluation.settling`. An
activation of b bits is quantized to a uint8 and clipped to 2^b - 1 *as an integer*: a clip in float
would keep the convolution from being recognized. Signed activations are uint8 around the middle.
Weights are int8, or uint8 around 128 where they and an 8-bit input could overflow the 16 bits in
which some processors add two products: for those, kernels take a wider sum.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seernet.compression import QuantConv2d, Quantizer, QuantLinear, fold_norms, profile_of
from seernet.evaluation.settling import MIDDLE, WIDEST_PAIR, stretched_integers

OPSET = 18


class QuantizeDequantize(nn.Module):
    """An activation quantizer as ONNX operators.

    Args:
        quantizer: Calibrated.
    """

    scale: Tensor
    zero: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.register_buffer("scale", quantizer.step.detach().float().reshape(()).clone())
        self.clipped = quantizer.bits < 8
        numbers = {"zero": -quantizer.low, "least": 0, "most": 2**quantizer.bits - 1}
        for name, value in numbers.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """Quantize a tensor of any shape."""
        y = _operator("QuantizeLinear", (x, self.scale, self.zero), torch.uint8, x)
        if self.clipped:
            y = _operator("Clip", (y, self.least, self.most), torch.uint8, x)
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
        if layer.weight_quantizer is None or layer.act_quantizer is None:
            raise TypeError("an integer layer needs a quantizer of its weights and of its input")
        self.act = QuantizeDequantize(layer.act_quantizer)
        integers, scale = stretched_integers(layer)
        wide = layer.act_quantizer.bits == 8 and int(integers.abs().max()) > WIDEST_PAIR
        middle, kind = (MIDDLE, torch.uint8) if wide else (0, torch.int8)
        self.register_buffer("weight_integers", (integers + middle).to(kind))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero", torch.full_like(scale, middle, dtype=kind))
        bias_scale = scale * self.act.scale
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

    The arithmetic of the normalisation runs over whole rows of pixels, whose channels alternate:
    runtimes are several times slower where a factor changes with every value.

    Args:
        network: Takes normalised images, `n x c x h x w`.
        mean: Of each channel, by which images in [0, 1] are normalised.
        std: The same for the standard deviation.
        width: Of the images, in pixels.
    """

    row_scale: Tensor
    row_shift: Tensor

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], width: int
    ) -> None:
        super().__init__()
        self.network = network
        middle, spread = torch.tensor(mean), torch.tensor(std)
        self.register_buffer("row_scale", (1.0 / (255.0 * spread)).repeat(width))
        self.register_buffer("row_shift", (-middle / spread).repeat(width))

    def forward(self, image: Tensor) -> Any:
        """Map uint8 images, `n x h x w x c`, to what the network gives."""
        rows = image.flatten(2).float() * self.row_scale + self.row_shift
        return self.network(rows.view(image.shape).permute(0, 3, 1, 2))


def to_integers(network: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """A copy of a network, norms folded, whose quantized parts are ONNX operators.

    Args:
        network: Compressed and calibrated; one that is not quantized only has its norms folded.
        input_shape: Channels, height and width of one image.
    """
    network = copy.deepcopy(network).cpu()
    network = fold_norms(network, profile_of(network, input_shape)).eval()
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
