"""Compression: physical pruning, fake quantization, calibration, and an independent count."""

from seernet.compression.calibration import calibrate, quantizers, recalibrate_norms
from seernet.compression.compress import build_compressed, compress, kept_channels
from seernet.compression.count import Count, count
from seernet.compression.packing import pack, pack_bits, signs, unpack, unpack_bits
from seernet.compression.quantizer import LearnedStep, Quantizer

__all__ = [
    "Count",
    "LearnedStep",
    "Quantizer",
    "build_compressed",
    "calibrate",
    "compress",
    "count",
    "kept_channels",
    "pack",
    "pack_bits",
    "quantizers",
    "recalibrate_norms",
    "signs",
    "unpack",
    "unpack_bits",
]
