"""Uniform policies: one pruning ratio and two bit-widths for the whole network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from seernet.policy import Bound, CostModel, SearchSpace
from seernet.policy.space import pruning_ratios


def uniform_candidates(model: CostModel, limits: Sequence[Bound], count: int = 8) -> Tensor:
    """The plain rival: the costliest uniform policies within a budget that no other dominates.

    One policy dominates another if it prunes no more, has no fewer bits of either kind, and
    differs: there is no reason to prefer the other.

    Args:
        model: Costs of the search space.
        limits: The budget's limits.
        count: How many at most.

    Returns:
        `n x d` discrete policies, dearest first; none if no uniform policy fits.
    """
    points, grades = all_uniform(model.space)
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


def all_uniform(space: SearchSpace) -> tuple[Tensor, Tensor]:
    """All uniform policies, `n x d`, and of each its kept fraction and bit-widths, `n x 3`."""
    config = space.config
    rows, grades = [], []
    for ratio, weight_bits, act_bits in itertools.product(
        pruning_ratios(config), config.weight_bits, config.act_bits
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
