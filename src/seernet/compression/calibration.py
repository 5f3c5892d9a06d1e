"""Calibration: batch-norm statistics and the first step sizes, from a few images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seernet.compression.quantizer import Quantizer
from seernet.models import in_mode

BATCH = 128  # images, at most
PIXELS = 1 << 21


def quantizers(model: nn.Module) -> list[Quantizer]:
    """All quantizers of a network."""
    return [module for module in model.modules() if isinstance(module, Quantizer)]


def calibrate(model: nn.Module, images: Tensor, shifted: bool = True) -> None:
    """Set batch-norm statistics and step sizes of a freshly compressed network, in place.

    Where removed channels shift statistics, these are re-estimated first, with quantization off;
    then each quantizer takes its step from what reaches it when those before it quantize.

    Args:
        model: The compressed network.
        images: `n x c x h x w`, normalised; step sizes come from the first 128, or fewer
            where images are large.
        shifted: Whether channels were removed.
    """
    found = quantizers(model)
    for quantizer in found:
        quantizer.enabled = False
    if shifted:
        recalibrate_norms(model, images)
    for quantizer in found:
        quantizer.enabled = True
        quantizer.observe(True)
    with in_mode(model, training=False), torch.no_grad():
        model(images[: at_once(images)])
    for quantizer in found:
        quantizer.observe(False)
    recalibrate_norms(model, images)


def at_once(images: Tensor) -> int:
    """How many images of that size fit memory well."""
    return max(1, min(BATCH, PIXELS // (images.shape[-2] * images.shape[-1])))


def recalibrate_norms(model: nn.Module, images: Tensor) -> None:
    """Re-estimate batch-norm statistics, in place, as plain averages over batches of `images`."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    # Batches of equal size, up to one image: each counts alike, and none is a single image, of
    # which a map of one pixel has no variance.
    count = min(math.ceil(len(images) / at_once(images)), max(1, len(images) // 2))
    batches = torch.tensor_split(images, count)
    try:
        with in_mode(model, training=False), torch.no_grad():
            for norm in norms:
                norm.train()
            for batch in batches:
                model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
