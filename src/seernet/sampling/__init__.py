"""Sampling: which policies to measure, actively, at random, and uniform ones."""

from seernet.sampling.active import ActiveSampler, Measured
from seernet.sampling.anchors import anchors
from seernet.sampling.design import SpreadDesign
from seernet.sampling.evolution import Evolution, diverse
from seernet.sampling.uniform import uniform_candidates

__all__ = [
    "ActiveSampler",
    "Evolution",
    "Measured",
    "SpreadDesign",
    "anchors",
    "diverse",
    "uniform_candidates",
]
