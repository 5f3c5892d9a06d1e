"""Compression: physical pruning, fake quantization, calibration, and an independent count."""

from seernet.compression.calibration import at_once, calibrate, quantizers, recalibrate_norms
from seernet.compression.compress import MAP_BITS, build_compressed, compress, kept_channels
from seernet.compression.count import Count, count
from seernet.compression.layers import QuantConv2d, QuantLinear
from seernet.compression.packing import (
    as_packed,
    fold_factor,
    fold_norms,
    pack,
    pack_bits,
    profile_of,
    signs,
    unpack,
    unpack_bits,
)
from seernet.compression.quantizer import LearnedStep, Quantizer

__all__ = [
    "MAP_BITS",
    "Count",
    "LearnedStep",
    "QuantConv2d",
    "QuantLinear",
    "Quantizer",
    "as_packed",
    "at_once",
    "build_compressed",
    "calibrate",
    "compress",
    "count",
    "fold_factor",
    "fold_norms",
    "kept_channels",
    "pack",
    "pack_bits",
    "profile_of",
    "quantizers",
    "recalibrate_norms",
    "signs",
    "unpack",
    "unpack_bits",
]
