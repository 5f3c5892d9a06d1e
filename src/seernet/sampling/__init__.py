"""Sampling: which policies to measure, actively, at random, and uniform ones."""

from seernet.sampling.active import ActiveSampler, Measured
from seernet.sampling.design import SpreadDesign
from seernet.sampling.evolution import Evolution, diverse
from seernet.sampling.uniform import uniform_anchors, uniform_candidates

__all__ = [
    "ActiveSampler",
    "Evolution",
    "Measured",
    "SpreadDesign",
    "diverse",
    "uniform_anchors",
    "uniform_candidates",
]
