"""Good policies that can be known before anything is measured, to start the search from.

Random policies are bad on the whole: a few wrong layers spoil each. So half of the initial design
are policies of one weight and one input bit-width, the same everywhere, whose widths follow the
sensitivities of the channel groups. They tell a predictor the level from which single layers
deviate, and what more of one kind of compression buys against another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seernet.config import OptimizeConfig
from seernet.optimization import Limit, optimize
from seernet.policy import SearchSpace, Sensitivity
from seernet.predictor import Posterior
from seernet.sampling.design import SpreadDesign
from seernet.sampling.uniform import all_uniform

_PER_COST = 2
_NO_DOUBT = 1e-12


def anchors(design: SpreadDesign, sensitivity: Sensitivity | None, count: int) -> Tensor:
    """Policies spread over a design's cost range: two pairs of bit-widths at each cost.

    The pairs are those whose uniform policy is the most balanced: its kept fraction and bit-widths
    lie at like heights of their ranges, on a logarithmic scale; of equally balanced ones those of
    more bits.

    Args:
        design: Whose space and cost range count.
        sensitivity: Decides the widths; None leaves them uniform.
        count: How many at most.

    Returns:
        Distinct discrete policies within the range, `n x d`, by rising cost, the more balanced of
        each cost first.
    """
    space = design.space
    points, grades = all_uniform(space)
    bops = design.cost(points).bops
    places = max(1, count // _PER_COST)
    found: dict[tuple[float, ...], None] = {}
    for place in range(places):
        budget = design.low * (design.high / design.low) ** ((place + 0.5) / places)
        (affordable,) = (bops <= budget).nonzero(as_tuple=True)
        taken = 0
        for index in _balanced(grades, affordable):
            point = points[index]
            if sensitivity is not None:
                point = _allocate(design, sensitivity, point, budget)
            if (key := tuple(point.tolist())) in found:
                continue  # of a lower cost, where widths cannot use up the difference
            if design.inside(point[None]):
                found[key] = None
            taken += 1
            if taken == _PER_COST:
                break
    return torch.tensor(list(found), dtype=torch.float64).reshape(-1, space.dimension)[:count]


def _balanced(grades: Tensor, affordable: Tensor) -> list[int]:
    """The widest affordable uniform policy of each pair of bit-widths, the most balanced first.

    Of equally balanced ones, more bits for inputs come first: weights bear few bits better.
    """
    low, high = grades.amin(dim=0), grades.amax(dim=0)
    varies = high > low
    heights = ((grades / low).log() / (high / low).log())[:, varies]
    imbalance = (heights.amax(dim=1) - heights.amin(dim=1)).tolist()
    widest: dict[tuple[float, float], int] = {}
    for index in affordable.tolist():
        kept, weight_bits, act_bits = grades[index].tolist()
        pair = (weight_bits, act_bits)
        if pair not in widest or kept > float(grades[widest[pair], 0]):
            widest[pair] = index
    return sorted(widest.values(), key=lambda i: (round(imbalance[i], 6), -float(grades[i, 2])))


def _allocate(
    design: SpreadDesign, sensitivity: Sensitivity, uniform: Tensor, budget: float
) -> Tensor:
    """The least sensitive widths at the bit-widths of a uniform policy, within a budget."""

    def undisturbed(u: Tensor) -> Posterior:
        value = sensitivity(u)
        return Posterior(value, torch.full_like(value, _NO_DOUBT))

    limit = Limit("bops", "BOPs", lambda u: design.cost(u).bops, budget)
    config = OptimizeConfig(kappa=0.0, starts=8, iterations=40)  # a sum over places is easy
    return optimize(undisturbed, [limit], _levels(design.space, uniform), config, 0).u


def _levels(space: SearchSpace, uniform: Tensor) -> Sequence[Tensor]:
    """All levels of the channel groups; of the bit-widths only those of a policy."""
    return [
        positions if coordinate.kind == "pruning_ratio" else uniform[i : i + 1]
        for i, (coordinate, positions) in enumerate(
            zip(space.coordinates, space.levels, strict=True)
        )
    ]
