"""Figures of the report: data frames in, a matplotlib `Figure` out; nothing touches pyplot.

Every figure is drawn in one style (`style`) and reads in gray scale: methods differ in marker,
line style and lightness, never in hue alone.
"""

from seernet.report.figures.front import front
from seernet.report.figures.policies import compute, policies
from seernet.report.figures.predictor import predictor
from seernet.report.figures.style import save
from seernet.report.figures.tradeoff import tradeoff

__all__ = ["compute", "front", "policies", "predictor", "save", "tradeoff"]
