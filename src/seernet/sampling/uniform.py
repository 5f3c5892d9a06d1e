"""Uniform policies: one pruning ratio and two bit-widths for the whole network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from seernet.policy import Bound, CostModel, SearchSpace
from seernet.sampling.design import SpreadDesign


def uniform_candidates(space: SearchSpace, limits: Sequence[Bound], count: int = 8) -> Tensor:
    """The plain rival: the costliest uniform policies within a budget that no other dominates.

    One policy dominates another if it prunes no more, has no fewer bits of either kind, and
    differs: there is no reason to prefer the other.

    Args:
        space: The search space.
        limits: The budget's limits.
        count: How many at most.

    Returns:
        `n x d` discrete policies, dearest first; none if no uniform policy fits.
    """
    points, grades = _all_uniform(space)
    model = CostModel(space)
    fits = torch.ones(len(points)) > 0
    for limit in limits:
        fits &= limit.evaluate(model, points) <= limit.limit
    points, grades = points[fits], grades[fits]
    at_least = (grades[:, None] >= grades[None]).all(dim=2)
    differs = (grades[:, None] != grades[None]).any(dim=2)
    dominated = (at_least & differs).any(dim=0)
    points = points[~dominated]
    order = model(points).bops.argsort(descending=True, stable=True)
    return points[order[:count]]


def uniform_anchors(design: SpreadDesign, count: int) -> Tensor:
    """Uniform policies spread over a design's cost range, the most balanced of each stratum.

    Balanced are those whose kept fraction and bit-widths lie at like heights of their ranges, on a
    logarithmic scale. They are rarely bad, at any cost: measured early, they tell a predictor the
    level from which single layers deviate, which random policies, bad on the whole, do not.

    Args:
        design: Whose space and cost range count.
        count: Strata, equal in log cost; one that holds no uniform policy gives none.

    Returns:
        At most `count x d` discrete policies, cheapest first.
    """
    points, grades = _all_uniform(design.space)
    low, high = grades.amin(dim=0), grades.amax(dim=0)
    heights = (grades / low).log() / (high / low).log().clamp_min(1e-9)
    imbalance = heights.amax(dim=1) - heights.amin(dim=1)
    place = (design.cost(points).bops / design.low).log() / math.log(design.high / design.low)
    stratum = torch.where(design.inside(points), (place * count).long().clamp_max(count - 1), -1)
    chosen = []
    for number in range(count):
        (members,) = (stratum == number).nonzero(as_tuple=True)
        if len(members):
            chosen.append(int(members[imbalance[members].argmin()]))
    return points[chosen]


def _all_uniform(space: SearchSpace) -> tuple[Tensor, Tensor]:
    """All uniform policies, and for each its kept fraction and bit-widths."""
    config = space.config
    steps = int(config.max_pruning_ratio / config.pruning_step + 1e-9)
    ratios = [step * config.pruning_step for step in range(steps + 1)]
    rows, grades = [], []
    for ratio, weight_bits, act_bits in itertools.product(
        ratios, config.weight_bits, config.act_bits
    ):
        row = []
        for coordinate in space.coordinates:
            full = coordinate.values[-1]
            wanted = {
                "pruning_ratio": full * (1.0 - ratio),
                "weight_bits": float(weight_bits),
                "act_bits": float(act_bits),
            }[coordinate.kind]
            low = coordinate.values[0]
            nearest = min(coordinate.values, key=lambda v, w=wanted: (abs(v - w), v))  # type: ignore[misc]
            row.append((nearest - low) / (full - low) if full > low else 1.0)
        rows.append(row)
        grades.append([1.0 - ratio, weight_bits, act_bits])
    return torch.tensor(rows, dtype=torch.float64), torch.tensor(grades, dtype=torch.float64)
