"""An independent count of what a compressed network costs, read off the network itself.

Nothing here knows a policy or a cost model: one forward pass is watched, shapes and bit-widths are
those of the modules that ran.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from seernet.models.profile import profile
from seernet.policy import FULL_BITS


@dataclass(frozen=True)
class Count:
    """Costs of one network.

    Attributes:
        bops: Bit operations of one image.
        macs: Multiply-accumulates of one image.
        parameters: Weights, biases (batch norms folded) and normalisations that are left.
        size_bytes: Packed weights, scales and biases.
    """

    bops: int
    macs: int
    parameters: int
    size_bytes: int


def count(network: nn.Module, input_shape: tuple[int, ...]) -> Count:
    """Count one compressed (or uncompressed) network; see `Count`."""
    parameter = next(network.parameters())
    image = torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype)
    training = network.training
    seen = profile(network.eval(), image)
    network.train(training)
    modules = dict(network.named_modules())
    folded = set(seen.folds.values())
    bops = seen.whole_macs * FULL_BITS**2
    bits_stored = 0
    parameters = 0
    accounted: set[int] = set()
    for name, macs in seen.layers.items():
        layer = modules[name]
        weight = getattr(layer, "weight_quantizer", None)
        act = getattr(layer, "act_quantizer", None)
        weight_bits = weight.bits if weight is not None else FULL_BITS
        bops += macs * weight_bits * (act.bits if act is not None else FULL_BITS)
        biases = layer.weight.shape[0] if layer.bias is not None or name in folded else 0
        scales = (weight.step.numel() if weight is not None else 0) + (act is not None)
        bits_stored += layer.weight.numel() * weight_bits + FULL_BITS * (biases + scales)
        parameters += layer.weight.numel() + biases
        accounted |= {id(p) for p in layer.parameters()}
    for name, module in modules.items():
        steps = [p for n, p in module.named_parameters(recurse=False) if n == "step"]
        accounted |= {id(p) for p in steps} if name.startswith("merge_") else set()
        if name in seen.folds:
            accounted |= {id(p) for p in module.parameters()}
    rest = sum(p.numel() for p in network.parameters() if id(p) not in accounted)
    return Count(
        bops=bops,
        macs=sum(seen.layers.values()) + seen.whole_macs,
        parameters=parameters + rest,
        size_bytes=math.ceil((bits_stored + FULL_BITS * rest) / 8),
    )
