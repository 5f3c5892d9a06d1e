"""The memory layout in which a network computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from seernet.models.surgery import is_depthwise

_BLOCK = 16  # channels that a convolution on a CPU takes at once


def lay_out(model: nn.Module, shape: Sequence[int]) -> None:
    """Put channels last in memory, where convolutions are faster that way; in place.

    Not where the network's forward pass relies on the usual layout (`view` after a convolution).
    On a CPU only if all widths are full blocks, or if some convolution is depthwise and none is a
    strided 1 x 1: other networks gain nothing, and such convolutions of few channels crash there
    (seen with torch 2.15).

    Args:
        model: The network, on its device.
        shape: Of one image, `(c, h, w)`.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    if layers and (_on_gpu(model) or _gains(layers)):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if _runs(model, shape):
            return
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _on_gpu(model: nn.Module) -> bool:
    return next(model.parameters()).is_cuda


def _gains(layers: Sequence[nn.Conv2d]) -> bool:
    if all(map(_full_blocks, layers)):
        return True
    crashes = any(max(layer.stride) > 1 and layer.kernel_size == (1, 1) for layer in layers)
    return any(map(is_depthwise, layers)) and not crashes


def _full_blocks(layer: nn.Conv2d) -> bool:
    reads_images = layer.in_channels <= 3 and layer.kernel_size != (1, 1)
    return layer.out_channels % _BLOCK == 0 and (reads_images or layer.in_channels % _BLOCK == 0)


@torch.no_grad()
def _runs(model: nn.Module, shape: Sequence[int]) -> bool:
    parameter = next(model.parameters())
    training = model.training
    model.eval()
    try:
        model(torch.zeros((2, *shape), device=parameter.device))
    except RuntimeError:
        return False
    finally:
        model.train(training)
    return True
