"""Packed networks: integers at their true widths, one scale a channel, batch norms folded.

    w = scale_c * integer,   scale_c = step_c * gamma_c / sqrt(var_c + eps)
    b = beta_c + (bias_c - mean_c) * gamma_c / sqrt(var_c + eps)

so that a layer and the norm behind it become one, as integer runtimes want them. A scale may be
negative. What is packed for each layer is what `size_bytes` counts: integers, a scale and a bias a
channel, and the step of its input.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seernet.compression.count import unquantized
from seernet.compression.quantizer import Quantizer
from seernet.errors import ArtifactError
from seernet.models import in_mode
from seernet.models.profile import Profile, profile


def pack_bits(values: Tensor, bits: int) -> Tensor:
    """Pack `n` integers in 0 .. 2^bits - 1 into `ceil(n * bits / 8)` bytes, lowest bit first."""
    array = values.flatten().to(torch.uint8).cpu().numpy()
    table = np.unpackbits(array[:, None], axis=1, bitorder="little")[:, :bits]
    return torch.from_numpy(np.packbits(table.flatten(), bitorder="little"))


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """Restore what `pack_bits` packed: uint8, `count`.

    Raises:
        ArtifactError: If there are too few or too many bytes.
    """
    if len(packed) != -(-count * bits // 8):
        raise ArtifactError(
            f"{len(packed)} packed bytes do not hold {count} values of {bits} bits; the file is "
            "damaged: write it again."
        )
    stream = np.unpackbits(packed.cpu().numpy(), bitorder="little")
    table = np.zeros((count, 8), dtype=np.uint8)
    table[:, :bits] = stream[: count * bits].reshape(count, bits)
    return torch.from_numpy(np.packbits(table, axis=1, bitorder="little")[:, 0])


def fold_norms(network: nn.Module, seen: Profile) -> nn.Module:
    """A copy in eval mode whose batch norms are part of the layers before them.

    Weights keep their integers: a channel's step takes the norm's factor, and with it its sign.

    Args:
        network: A compressed network, calibrated.
        seen: Its profile.
    """
    network = copy.deepcopy(network).eval()
    with torch.no_grad():
        for name, layer_name in seen.folds.items():
            norm: Any = network.get_submodule(name)
            layer: Any = network.get_submodule(layer_name)
            factor = fold_factor(norm)
            shape = (-1, *[1] * (layer.weight.dim() - 1))
            layer.weight.mul_(factor.view(shape))
            quantizer = getattr(layer, "weight_quantizer", None)
            if quantizer is not None:
                # A channel that its norm silences keeps its step: its integers are all zero.
                quantizer.step.mul_(torch.where(factor == 0.0, 1.0, factor))
            bias = layer.bias if layer.bias is not None else torch.zeros_like(factor)
            shift = norm.bias if norm.bias is not None else 0.0
            layer.bias = nn.Parameter(shift + (bias - norm.running_mean) * factor)
            network.set_submodule(name, nn.Identity())
    return network


def fold_factor(norm: nn.Module) -> Tensor:
    """What a batch norm of a profile's `folds` multiplies each channel by, in eval mode."""
    part: Any = norm
    scale = part.weight if part.weight is not None else torch.ones_like(part.running_var)
    return torch.as_tensor(scale / (part.running_var + part.eps).sqrt())


def profile_of(network: nn.Module, input_shape: tuple[int, ...]) -> Profile:
    """Watch one image pass a compressed network, its quantizers switched off."""
    parameter = next(network.parameters())
    image = torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype)
    with in_mode(network, training=False), unquantized(network):
        return profile(network, image)


def pack(network: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Tensor]:
    """All tensors of a compressed network, packed.

    Args:
        network: Compressed, calibrated and trained; left as it is.
        input_shape: Channels, height and width of one image.

    Returns:
        For a layer of quantized weights `<layer>.weight` (uint8, the integers from the lowest one,
        at their width), `<layer>.scale` and `<layer>.bias` (float32, one a channel); the step of
        each other quantizer; and everything else as it is, in float32.
    """
    folded = fold_norms(network, profile_of(network, input_shape))
    tensors: dict[str, Tensor] = {}
    packed: set[str] = set()
    for name, module in folded.named_modules():
        quantizer = getattr(module, "weight_quantizer", None)
        if isinstance(quantizer, Quantizer):
            integers = quantizer.integers(module.weight).to(torch.int16) - quantizer.low  # type: ignore[arg-type]
            tensors[f"{name}.weight"] = pack_bits(integers, quantizer.bits)
            tensors[f"{name}.scale"] = quantizer.step.detach().float()
            packed |= {f"{name}.weight", f"{name}.weight_quantizer.step"}
    for name, value in folded.state_dict().items():
        if name not in packed and not name.endswith("_extra_state"):
            tensors[name] = value.detach().float()
    return {name: value.cpu().contiguous().clone() for name, value in tensors.items()}


def as_packed(network: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """The network that a packed file of this one holds: what ships, to the digit.

    Args:
        network: Compressed, calibrated and trained; left as it is.
        input_shape: Channels, height and width of one image.

    Returns:
        A copy in eval mode, norms folded, on the same device.
    """
    tensors = pack(network, input_shape)
    return unpack(copy.deepcopy(network), tensors, signs(network), input_shape)


def signs(network: nn.Module) -> dict[str, bool]:
    """Which quantizers are signed, by name: what `unpack` needs beside the tensors."""
    return {
        name: module.signed
        for name, module in network.named_modules()
        if isinstance(module, Quantizer)
    }


def unpack(
    skeleton: nn.Module,
    tensors: dict[str, Tensor],
    signed: dict[str, bool],
    input_shape: tuple[int, ...],
) -> nn.Module:
    """A network in eval mode that computes what the packed one does.

    Args:
        skeleton: A network of the same shapes (see `build_compressed`), whose weights do not count.
        tensors: From `pack`.
        signed: From `signs`.
        input_shape: Channels, height and width of one image.

    Raises:
        ArtifactError: If the tensors do not belong to the network.
    """
    try:
        for name, module in skeleton.named_modules():
            if isinstance(module, Quantizer):
                module.signed, module.ready = signed[name], True
        network = fold_norms(skeleton, profile_of(skeleton, input_shape))
        state = network.state_dict()
        left = dict(tensors)
        for name, module in network.named_modules():
            quantizer = getattr(module, "weight_quantizer", None)
            if isinstance(quantizer, Quantizer):
                weight: Any = module.weight
                stored = unpack_bits(left.pop(f"{name}.weight"), quantizer.bits, weight.numel())
                integers = stored.to(torch.int16).view(weight.shape) + quantizer.low
                step = left.pop(f"{name}.scale")
                left[f"{name}.weight"] = integers * step.view(-1, *[1] * (weight.dim() - 1))
                left[f"{name}.weight_quantizer.step"] = step
        extra = {key: value for key, value in state.items() if key.endswith("_extra_state")}
        network.load_state_dict(left | extra)
    except (KeyError, RuntimeError) as error:
        raise ArtifactError(
            "the packed tensors do not belong to the network "
            f"({' '.join(str(error).split())[:200]}); write the file again."
        ) from error
    return network.eval()
