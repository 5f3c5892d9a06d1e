"""Acquisitions: how informative measuring a candidate would be.

`integrated` (the default) asks which measurements, together, would lower the variance most where it
matters: among policies spread over cost, and along the predicted front. It needs no rule against
near-twins. See `reduce_variance`. They join what the ascent would choose now, a quarter of each
batch.

The others value candidates one by one. `variance` is the paper's: ask where the predictor is least
certain. Where accuracy is low it is least certain too, so that asks mostly about policies nobody
would choose. `frontier` asks where it is uncertain *and* the policy may be the best at its cost:
the standard deviation times the probability of beating the predicted front. `gap` is what the
published code computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.policy import CostModel, FeatureMap
from seernet.predictor import Posterior, Predictor


@dataclass(frozen=True)
class Belief:
    """What the predictor says of policies of one space.

    Attributes:
        predictor: The fitted predictor.
        features: Features of the space's policies.
        cost: The space's cost model.
    """

    predictor: Predictor
    features: FeatureMap
    cost: CostModel

    def posterior(self, u: Tensor) -> Posterior:
        """Posterior of `n x d` policies."""
        with torch.no_grad():
            return self.predictor.posterior(self.features(u))


Acquisition = Callable[[Belief, Tensor], Tensor]


def variance(belief: Belief, u: Tensor) -> Tensor:
    """Posterior variance of the score of `n x d` candidates: `n`."""
    return belief.posterior(u).variance


def frontier(belief: Belief, u: Tensor) -> Tensor:
    """Standard deviation times the probability of lying above the front: `n`.

    The front at a cost is the highest mean among those candidates that cost no more, so the value
    is relative to the other candidates.
    """
    mean, spread = belief.posterior(u)
    std = spread.clamp(min=1e-18).sqrt()
    order = belief.cost(u).bops.argsort(stable=True)
    front = torch.empty_like(mean)
    front[order] = mean[order].cummax(dim=0).values
    chance: Tensor = torch.special.ndtr((mean - front) / std)
    return std * chance


def gap(belief: Belief, u: Tensor) -> Tensor:
    """Mean squared difference of the predicted score to all one-step neighbours: `n`.

    Source:
        What the code published with the paper computes in place of an ensemble's variance.
    """
    coordinates = belief.features.space.coordinates
    steps = torch.tensor([1.0 / max(1, len(c.values) - 1) for c in coordinates], dtype=u.dtype)
    moves = torch.cat([torch.diag(steps), -torch.diag(steps)])
    neighbours = (u[:, None, :] + moves).clamp(0.0, 1.0)
    around = belief.posterior(neighbours.flatten(0, 1)).mean.view(len(u), -1)
    return (around - belief.posterior(u).mean[:, None]).square().mean(dim=1)


ACQUISITIONS: dict[str, Acquisition] = {"frontier": frontier, "variance": variance, "gap": gap}


def reduce_variance(
    joint: Tensor, noise: Tensor, weight: Tensor, count: int, first: Iterable[int] = ()
) -> list[int]:
    """Choose the measurements that lower a weighted sum of variances most, one after the other.

    Measuring x lowers the variance at r by cov(r, x)^2 / (var(x) + noise(x)), whatever the outcome.

    Args:
        joint: Posterior covariance of `m` policies, `m x m`.
        noise: Variance of a measurement of each, `m`.
        weight: How much the variance at each policy matters, `m`.
        count: How many to choose; a policy may be chosen once.
        first: Indices of some that are chosen in any case, before the others.

    Returns:
        Indices, the most informative first.

    Source:
        Cohn, Ghahramani & Jordan (1996), Active learning with statistical models.
    """
    joint = joint.clone()
    chosen: list[int] = []
    wanted = list(first)
    for place in range(min(count, len(joint))):
        total = joint.diagonal().clamp_min(0.0) + noise.clamp_min(1e-18)
        gain = (joint.square() * weight[:, None]).sum(dim=0) / total
        gain[chosen] = -1.0
        best = wanted[place] if place < len(wanted) else int(gain.argmax())
        chosen.append(best)
        joint = joint - torch.outer(joint[:, best], joint[best]) / total[best]
    return chosen
