"""The last step of finetuning: biases become what integer accumulators can hold.

An integer kernel adds a layer's bias to sums of (input integer x weight integer), so a bias is a
multiple of (input step x weight step). What is scored is what ships: the finetuned network takes
such biases before it is tested.

The product of two steps of few bits would be too coarse, but weights lie in bytes, and are
stretched by a whole number as far as these go. Processors without dot-product instructions add two
products of a uint8 and an int8 in 16 bits: where inputs have 8 bits, weights are stretched to 64 at
most, so that 2 x 255 x 64 < 2^15.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seernet.compression import QuantConv2d, QuantLinear, fold_factor, fold_norms, profile_of

WIDEST = 127
WIDEST_PAIR = 64  # with inputs of 8 bits
LARGEST_BIAS = 2**30  # of an accumulator of 32 bits
SMALLEST_SCALE = 1e-30  # so that products of scales are normal numbers
MIDDLE = 128  # of a byte: what stands for zero in a signed tensor


def stretched_integers(layer: QuantConv2d | QuantLinear) -> tuple[Tensor, Tensor]:
    """A layer's weights as integers, and what each channel's count for.

    Args:
        layer: Its norm folded, so that steps may be negative.

    Returns:
        Integers, int16, of the weight's shape, in -128 .. 127; and positive scales, one a channel.
        At 8 bits the one integer that cannot be negated, -128, gets its neighbour's value.
    """
    quantizer: Any = layer.weight_quantizer
    act: Any = layer.act_quantizer
    step = quantizer.step.detach().float()
    integers = quantizer.integers(layer.weight.detach()).to(torch.int16)
    sign = torch.where(step < 0.0, -1, 1).to(torch.int16)
    integers = integers * sign.view(-1, *[1] * (integers.dim() - 1))
    integers = integers.clamp(-MIDDLE, MIDDLE - 1)
    widest = WIDEST_PAIR if act.bits == 8 else WIDEST
    stretch = max(1, widest // max(1, int(integers.abs().max())))
    integers, scale = integers * stretch, step.abs() / stretch
    if layer.bias is None:
        return integers, scale
    # A channel that its norm all but silences leaves steps so small that no accumulator holds its
    # bias: it takes the smallest step that does, with weights that are next to nothing or nothing.
    least = layer.bias.detach().float().abs() / (LARGEST_BIAS * act.step.detach().float())
    raised = torch.maximum(scale, least).clamp_min(SMALLEST_SCALE)
    factor = torch.where(raised > scale, scale / raised, 1.0).view(-1, *[1] * (integers.dim() - 1))
    return (integers * factor).round().to(torch.int16), raised


def settle(network: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Round the biases of all integer layers to what their accumulators hold, in place.

    Where a batch norm folds into a layer, its bias takes the change.

    Args:
        network: Compressed, calibrated and trained.
        input_shape: Channels, height and width of one image.
    """
    seen = profile_of(network, input_shape)
    norms = {layer: norm for norm, layer in seen.folds.items()}
    folded = fold_norms(network, seen)
    for name, layer in folded.named_modules():
        if not isinstance(layer, QuantConv2d | QuantLinear) or layer.bias is None:
            continue
        if layer.weight_quantizer is None or layer.act_quantizer is None:
            continue
        _, scale = stretched_integers(layer)
        unit = scale * layer.act_quantizer.step.detach().float()
        change = (layer.bias / unit).round() * unit - layer.bias
        owner: Any = network.get_submodule(norms.get(name, name))
        with torch.no_grad():
            if owner.bias is not None:
                owner.bias += change
            elif name in norms:  # it has statistics alone
                owner.running_mean -= change / fold_factor(owner)
