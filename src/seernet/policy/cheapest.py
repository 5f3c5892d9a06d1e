"""The cheapest policy of a grid, and how a budget below it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def cheapest(cost: Callable[[Tensor], Tensor], levels: Sequence[Tensor]) -> Tensor:
    """Find the discrete policy of least cost, `d`.

    From the lower corner, each coordinate in turn takes its cheapest level, until none gains.
    Where the cost never falls when a coordinate rises, the corner itself is the cheapest; where it
    may fall, as latency does, the policy is the cheapest that was found.

    Args:
        cost: Maps `n x d` policies to `n` costs.
        levels: For each of `d` coordinates its allowed values, increasing.
    """
    point = torch.stack([level[0] for level in levels])
    with torch.no_grad():
        least, improved = float(cost(point[None])[0]), True
        while improved:
            improved = False
            for index, level in enumerate(levels):
                points = point.repeat(len(level), 1)
                points[:, index] = level
                costs = cost(points)
                best = int(costs.argmin())
                if float(costs[best]) < least:
                    point, least, improved = points[best], float(costs[best]), True
    return point


def told_apart(low: float, high: float) -> tuple[str, str]:
    """Two different numbers with as many digits as tell them apart, six at least."""
    for digits in range(6, 18):
        texts = f"{low:.{digits}g}", f"{high:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts
