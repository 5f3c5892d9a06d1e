"""Compression: physical pruning, fake quantization, calibration, and an independent count."""

from seernet.compression.calibration import calibrate, quantizers, recalibrate_norms
from seernet.compression.compress import build_compressed, compress, kept_channels
from seernet.compression.count import Count, count
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
    "quantizers",
    "recalibrate_norms",
]
