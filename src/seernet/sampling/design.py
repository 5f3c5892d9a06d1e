"""Policies spread over cost: the initial design, and the random search it is compared with.

Independent uniform draws per layer all cost about the same, because sums concentrate. So each
policy first draws the cost it is to have, log-uniformly over the range of interest (a golden-ratio
sequence, which fills the range evenly at every length), then a random profile over coordinates, and
the profile is shifted until the cost is met.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seernet.errors import ConfigError
from seernet.policy import CostModel, SearchSpace

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_BISECTIONS = 40
_ATTEMPTS = 50
_LARGEST_SPREAD = 2.0


class SpreadDesign:
    """A sequence of discrete policies whose costs fill a range; the n-th is the same in any number.

    Args:
        space: The search space.
        cost_range: Smallest and largest BOPs, relative to the baseline at 32 bits.
        seed: Seed of the sequence.

    Raises:
        ConfigError: If no policy of the space lies in the range.
    """

    def __init__(self, space: SearchSpace, cost_range: tuple[float, float], seed: int) -> None:
        self.space = space
        self.cost = CostModel(space)
        self.seed = seed
        baseline = float(self.cost.baseline().bops)
        cheapest, dearest = (self.cost(space.ends).bops / baseline).tolist()
        self.low = baseline * max(cost_range[0], cheapest)
        self.high = baseline * min(cost_range[1], dearest)
        if self.low >= self.high:
            raise ConfigError(
                f"sample.cost_range {list(cost_range)} holds no policy of the search space, whose "
                f"costs run from {cheapest:.4g} to {dearest:.4g} of the baseline; widen it."
            )

    def inside(self, u: Tensor) -> Tensor:
        """Which of `n x d` policies cost what the range allows."""
        bops = self.cost(u).bops
        inside: Tensor = (bops >= self.low) & (bops <= self.high)
        return inside

    def draw_many(self, start: int, count: int) -> Tensor:
        """Consecutive policies of the sequence, `count x d`."""
        indices = range(start, start + count)
        generators = [torch.Generator().manual_seed(self.seed * 1_000_003 + i) for i in indices]
        targets = torch.tensor([self._target(i) for i in indices], dtype=torch.float64)
        points = torch.zeros(count, self.space.dimension, dtype=torch.float64)
        missing = torch.arange(count)
        for _ in range(_ATTEMPTS):
            profiles = torch.stack([self._profile(generators[i]) for i in missing.tolist()])
            tries = self.space.round(self._shifted(profiles, targets[missing]))
            inside = self.inside(tries)
            points[missing[inside]] = tries[inside]
            missing = missing[~inside]
            if not len(missing):
                return points
        for i in missing.tolist():
            points[i] = self._nearest(generators[i], float(targets[i]))
        return points

    def _target(self, index: int) -> float:
        """Cost that a place of the sequence asks for."""
        phase = torch.rand(1, generator=torch.Generator().manual_seed(self.seed)).item()
        share = (phase + index * GOLDEN) % 1.0
        return float(self.low * (self.high / self.low) ** share)

    def _profile(self, generator: torch.Generator) -> Tensor:
        """Random logits: one level a kind (channels, weights, inputs), and one a coordinate.

        How much coordinates differ within a kind is drawn too, from nearly uniform policies, among
        which good ones are found, to wild ones, which teach what each layer bears.
        """
        kinds = sorted({c.kind for c in self.space.coordinates})
        level = 2.0 * torch.randn(len(kinds), generator=generator, dtype=torch.float64)
        of_kind = torch.tensor([kinds.index(c.kind) for c in self.space.coordinates])
        noise = torch.randn(self.space.dimension, generator=generator, dtype=torch.float64)
        share = torch.rand(1, generator=generator, dtype=torch.float64)
        spread = _LARGEST_SPREAD * share.square()
        return level[of_kind] + spread * noise

    def _shifted(self, profiles: Tensor, targets: Tensor) -> Tensor:
        """Shift `n x d` logits until their relaxed costs are the `n` targets, by bisection."""
        low = torch.full_like(targets, -30.0)
        high = torch.full_like(targets, 30.0)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            above = self.cost(torch.sigmoid(profiles + middle[:, None])).bops > targets
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return torch.sigmoid(profiles + low[:, None])

    def _nearest(self, generator: torch.Generator, target: float) -> Tensor:
        """Rounding can miss a narrow range, or its ends: the best of many tries, or an error.

        Where none that aims at the target comes to lie inside, others aim all over the range.
        """
        places = torch.linspace(0.0, 1.0, _ATTEMPTS, dtype=torch.float64)
        everywhere = self.low * (self.high / self.low) ** places
        for aims in (torch.full_like(everywhere, target), everywhere):
            profiles = torch.stack([self._profile(generator) for _ in range(_ATTEMPTS)])
            points = self.space.round(self._shifted(profiles, aims))
            misfit = (self.cost(points).bops.log() - math.log(target)).abs()
            misfit[~self.inside(points)] = torch.inf
            if bool(misfit.isfinite().any()):
                return points[int(misfit.argmin())]
        raise ConfigError(
            "no policy with a cost inside sample.cost_range was found in "
            f"{3 * _ATTEMPTS} tries; widen the range, or refine the space."
        )
