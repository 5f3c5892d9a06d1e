"""How far predictions reach: doubt that grows away from the measured policies.

A predictor fitted to few rows is mostly a trend, and the ascent follows a trend as far as the
budget lets it: every inner layer whole, say, and the stream between them at one channel, where no
measurement ever was. The model's own variance says little of that, for it takes its trend to hold
everywhere; nor does cross-validation, whose rows lie where the others do. So the variance of log
errors gets a term that is zero as near to a measured policy as measured policies are to each other,
and rises beyond:

    doubt(x) = (SLOPE e)^2,   e = min(LIMIT, max(0, min_i |x - x_i| / reach - 1))

Only policies that a budget relies on are judged so. What is measured next is chosen without: there,
surprises are welcome.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Standard deviation that each further reach adds, in spreads of the measured log errors.
SLOPE = 2.0
LIMIT = 3.0  # reaches; more would serve nothing, and moments in score units would overflow
# The reach is this quantile of the rows' distances to their nearest others. Rows spread over the
# space are far from each other; those that the sampler placed to refine a front are not.
QUANTILE = 0.25
MIN_REACH = 1e-3  # standardized


@dataclass(frozen=True)
class Reach:
    """The neighbourhood of the measured policies, in standardized features.

    Attributes:
        rows: Measured policies, `n x f`.
        distance: How far from its nearest row a policy may be without further doubt.
    """

    rows: Tensor
    distance: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Reach:
        """Measure the reach of `n x f` rows; policies measured twice count once."""
        distinct = torch.unique(rows, dim=0)
        if len(distinct) < 2:
            return cls(rows, rows.new_tensor(MIN_REACH))
        apart = torch.cdist(distinct, distinct, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = apart.fill_diagonal_(torch.inf).amin(dim=1)
        return cls(rows, nearest.quantile(QUANTILE).clamp_min(MIN_REACH))

    def doubt(self, inputs: Tensor) -> Tensor:
        """Variance to add at `n x f` standardized inputs, in squared standardized targets: `n`."""
        squares = inputs.square().sum(dim=1, keepdim=True) + self.rows.square().sum(dim=1)
        # The square root's slope is infinite at zero.
        nearest = (squares - 2 * inputs @ self.rows.mT).amin(dim=1).clamp_min(1e-12).sqrt()
        excess = (nearest / self.distance - 1.0).clamp(0.0, LIMIT)
        return (SLOPE * excess).square()
