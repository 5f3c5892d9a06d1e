"""An independent count of what a compressed network costs, read off the network itself.

Nothing here knows a policy or a cost model: one forward pass is watched, shapes and bit-widths are
those of the modules that ran.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seernet.compression.calibration import quantizers
from seernet.compression.quantizer import Quantizer
from seernet.models import in_mode
from seernet.models.profile import Profile, profile
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
    """Count one compressed (or uncompressed) network, calibrated or not; see `Count`."""
    parameter = next(network.parameters())
    image = torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype)
    with in_mode(network, training=False), unquantized(network):
        seen = profile(network, image)
    bops = seen.whole_macs * FULL_BITS**2
    parameters = 0
    bits_stored = FULL_BITS * len(_maps(network))
    accounted: set[str] = set()
    for name, macs in seen.layers.items():
        layer = network.get_submodule(name)
        weight = getattr(layer, "weight_quantizer", None)
        act = getattr(layer, "act_quantizer", None)
        weight_bits = weight.bits if weight is not None else FULL_BITS
        bops += macs * weight_bits * (act.bits if act is not None else FULL_BITS)
        stored: Tensor = layer.weight  # type: ignore[assignment]
        elements, channels = stored.numel(), len(stored)
        biases = channels if layer.bias is not None or name in seen.folds.values() else 0
        scales = (channels if weight is not None else 0) + (act is not None)
        bits_stored += elements * weight_bits + FULL_BITS * (biases + scales)
        parameters += elements + biases
        accounted |= {f"{name}.weight", f"{name}.bias"}
    rest = _floats_elsewhere(network, seen, accounted)
    return Count(
        bops=bops,
        macs=sum(seen.layers.values()) + seen.whole_macs,
        parameters=parameters + rest,
        size_bytes=math.ceil((bits_stored + FULL_BITS * rest) / 8),
    )


def _maps(network: nn.Module) -> list[Quantizer]:
    """The quantizers that are no layer's own; each has one scale."""
    modules = list(network.modules())
    own = {q for m in modules for q in m.children() if hasattr(m, "weight_quantizer")}
    return [m for m in modules if isinstance(m, Quantizer) and m not in own]


def _floats_elsewhere(network: nn.Module, seen: Profile, accounted: set[str]) -> int:
    """Scales and shifts of the norms that do not fold, and all other parameters that are read."""
    floats = 0
    done = set(accounted)
    for name in seen.norms:
        norm = network.get_submodule(name)
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            floats += 0 if name in seen.folds else 2 * norm.num_features
            done |= {f"{name}.weight", f"{name}.bias"}
    others = [p for name, p in network.named_parameters() if name in seen.read - done]
    return floats + sum(parameter.numel() for parameter in others)


@contextmanager
def unquantized(network: nn.Module) -> Iterator[None]:
    """Switch quantizers off: they cost nothing here, and may not be calibrated yet."""
    before = {quantizer: quantizer.enabled for quantizer in quantizers(network)}
    for quantizer in before:
        quantizer.enabled = False
    try:
        yield
    finally:
        for quantizer, enabled in before.items():
            quantizer.enabled = enabled
