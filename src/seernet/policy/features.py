"""Features of a policy that an accuracy predictor learns from easily: what physics knows.

The power of uniform quantization noise falls with 4^-bits, so a bit-width enters as the share of
that noise it takes away. Halving a group's channels costs about as much wherever it happens, so
they enter by their logarithm, from 0 at the fewest to 1 at all. A few sums over layers, each
weighted by the layer's share of the MACs, say the same of the network as a whole, for predictors
that have seen few policies, and the measured sensitivities of single places, if given, say which
places matter. Every feature lies in [0, 1], and none falls when more bits or channels
are kept: accuracy should not fall in any of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seernet.policy.cost import CostModel
from seernet.policy.sensitivity import Sensitivity
from seernet.policy.space import SearchSpace


class FeatureMap:
    """Maps relaxed policies to features; see the module's docstring.

    Args:
        space: The search space.
        sensitivity: Of its places, measured; None leaves that feature out.
    """

    def __init__(self, space: SearchSpace, sensitivity: Sensitivity | None = None) -> None:
        self.space = space
        self.sensitivity = sensitivity
        self.cost = CostModel(space)
        kinds = [c.kind for c in space.coordinates]
        self._pruned = torch.tensor([kind == "pruning_ratio" for kind in kinds])
        self._low_noise = torch.pow(4.0, -space.low)
        self._span = _span(self._low_noise - torch.pow(4.0, -space.high))
        self._halvings = _span((space.high / space.low).log())
        self._log_bops = self.cost(space.ends).bops.log()
        macs = self.cost(space.ends[1:]).layer_macs[0]
        names = [layer.name for layer in space.graph.layers]
        share = dict(zip(names, (macs / macs.sum()).tolist(), strict=True))
        sums = [
            [share[c.name] if c.kind == kind else 0.0 for c in space.coordinates]
            for kind in ("weight_bits", "act_bits")
        ]
        sums.append([float(c.kind == "pruning_ratio") for c in space.coordinates])
        weights = torch.tensor(sums, dtype=torch.float64)
        self._weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-300)

    @property
    def names(self) -> list[str]:
        """Name of each feature."""
        single = [f"{c.kind}/{c.name}" for c in self.space.coordinates]
        sums = ["sum/weight_bits", "sum/act_bits", "sum/kept", "log_bops"]
        return [*single, *sums, *(["sensitivity"] if self.sensitivity is not None else [])]

    def __call__(self, u: Tensor) -> Tensor:
        """Features of relaxed policies.

        Args:
            u: `n x d` points in [0, 1].

        Returns:
            `n x f` features in [0, 1], differentiable, each non-decreasing in every coordinate.
        """
        value = self.space.physical(u)
        kept = (value / self.space.low).log() / self._halvings
        quiet = (self._low_noise - torch.pow(4.0, -value)) / self._span
        single = torch.where(self._pruned, kept, quiet)
        log_bops = self.cost(u).bops.log()
        relative = (log_bops - self._log_bops[0]) / _span(self._log_bops[1] - self._log_bops[0])
        parts = [single, single @ self._weights.T, relative[:, None]]
        if self.sensitivity is not None:
            parts.append(self.sensitivity(u)[:, None])
        return torch.cat(parts, dim=1)


def _span(ends: Tensor) -> Tensor:
    """Distances between ends, 1 where there is none, to divide by."""
    return torch.where(ends > 0.0, ends, 1.0)
