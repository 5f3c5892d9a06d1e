"""Policy optimization: the best predicted policy inside a budget, by gradients and no measurements.

A short way through: `problem` states limits and solutions; `starts` spreads feasible points;
`barrier` climbs the predictor's gradient inside the budget; `grid` goes from relaxed to discrete;
`local_search` goes on from there across the budget; `optimize` puts them together.
"""

from seernet.optimization.optimize import optimize, optimize_many
from seernet.optimization.problem import Limit, Solution

__all__ = ["Limit", "Solution", "optimize", "optimize_many"]
