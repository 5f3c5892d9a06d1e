"""The active sampling loop: an initial design, then rounds of fit, search and measurement.

The search core alone: what measures a policy is a function, so one's own training loop can stand
in its place.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.config import FEWEST_POLICIES, OptimizeConfig, PredictorConfig, SampleConfig
from seernet.errors import SeerNetError
from seernet.optimization import Limit, optimize_many
from seernet.policy import FeatureMap, Policy, SearchSpace, Sensitivity
from seernet.predictor import Predictor, fit
from seernet.sampling.acquisition import ACQUISITIONS, Belief, reduce_variance
from seernet.sampling.anchors import anchors
from seernet.sampling.design import GOLDEN, SpreadDesign
from seernet.sampling.evolution import Evolution, distances, diverse

logger = logging.getLogger(__name__)

_RANDOM_SEED = 7919
_PROPOSALS = 1 << 20
_ANCHORS = 0.5  # of the initial design
_FRONT = 24
_FRONT_SHARES = {"integrated": 0.25, "frontier": 0.75}  # of a batch, what the ascent would choose
_SAME = 1e-9
_VAIN = 8  # rounds that find no new policy


@dataclass(frozen=True)
class Measured:
    """One policy that was measured (or failed to be).

    Attributes:
        round: 0 for the initial design and for random policies, then 1, 2, ...
        origin: `initial`, `active` or `random`.
        policy: The policy.
        score: Its score; 0 or None where measuring it failed, see `ActiveSampler.run`.
        soft: A less noisy companion of the score, if there is one; see `predictor.smoothed`.
    """

    round: int
    origin: str
    policy: Policy
    score: float | None
    soft: float | None = None


Measure = Callable[[Sequence[Policy]], Sequence[float | None]]
Soft = Callable[[Policy], float | None]


class ActiveSampler:
    """Chooses and measures policies.

    The first n policies of a longer run are those of a shorter one: `initial` and `batch` decide
    them, the total only where to stop.

    Args:
        space: The search space.
        sample: The `sample` section.
        predictor: The `predictor` section.
        seed: Seed of the pipeline.
        sensitivity: Of the places of the space, if it was measured.
    """

    def __init__(
        self,
        space: SearchSpace,
        sample: SampleConfig,
        predictor: PredictorConfig,
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> None:
        self.space = space
        self.config = sample
        self.predictor = predictor
        self.seed = seed
        self.sensitivity = sensitivity
        self.features = FeatureMap(space, sensitivity)
        low, high = sample.cost_range
        self.design = SpreadDesign(space, (low, high), seed)

    def random_policies(self) -> list[Policy]:
        """As many policies as `sample.evaluations`, from the same design, for random search."""
        low, high = self.config.cost_range
        design = SpreadDesign(self.space, (low, high), self.seed + _RANDOM_SEED)
        return self.space.decode(design.draw_many(0, self.config.evaluations))

    def initial_policies(self) -> list[Policy]:
        """The initial design: half of it anchors, the others spread at random."""
        count = self.config.initial
        first = anchors(self.design, self.sensitivity, round(count * _ANCHORS))
        points = torch.cat([first, self.design.draw_many(0, count)])
        distinct = {policy.key(): policy for policy in self.space.decode(points)}
        return list(distinct.values())[: min(count, self.config.evaluations)]

    def run(self, measure: Measure, soft: Soft = lambda _: None) -> list[Measured]:
        """Run the loop.

        Args:
            measure: Scores of policies in their order: 0 where one cannot be trained, so that its
                like are avoided; None where nothing was learnt, as when memory ran out.
            soft: The soft score of a policy that was measured, None if there is none.

        Returns:
            All policies that were measured, in order.

        Raises:
            SeerNetError: If next to nothing was learnt, or all policies score the same.
        """
        policies = self.initial_policies()
        scores = measure(policies)
        measured = [
            Measured(0, "initial", p, s, soft(p)) for p, s in zip(policies, scores, strict=True)
        ]
        number = vain = 0
        while len(measured) < self.config.evaluations and vain < _VAIN:
            number += 1
            count = min(self.config.batch, self.config.evaluations - len(measured))
            batch = self.propose(measured, number)[:count]
            vain = 0 if batch else vain + 1
            if not batch:
                continue  # other candidates, until the space seems exhausted
            scores = measure(batch)
            measured += [
                Measured(number, "active", p, s, soft(p))
                for p, s in zip(batch, scores, strict=True)
            ]
        if len(measured) < self.config.evaluations:
            logger.warning(
                "no more than %d policies of sample.cost_range were found, of the %d that "
                "sample.evaluations asks for",
                *(len(measured), self.config.evaluations),
            )
        return measured

    def propose(self, measured: Sequence[Measured], number: int) -> list[Policy]:
        """A batch of policies worth measuring next, given those measured so far.

        It is a full one, if there are as many new candidates.

        With the acquisitions `integrated` and `frontier`, a part of it is what the ascent would
        choose now, at costs that shift from round to round: where the predictor is too optimistic
        it learns so before a budget relies on it. With `integrated` the others are those that, with
        these, lower the variance of random policies and of the predicted front most; with the other
        acquisitions, the candidates that they value most, spread over cost.
        """
        known = self.space.encode([m.policy for m in measured])
        first = _PROPOSALS + number * self.config.population
        population = self.design.draw_many(first, self.config.population)
        if self.config.acquisition == "integrated":
            belief = Belief(self._fit(measured, known), self.features, self.design.cost)
            batch = self._most_informative(belief, population, known, number)
            return self.space.decode(batch)
        seed = self.seed * 1_000_003 + number
        evolution = Evolution(self.design, self.config.batch, self.config.generations, seed)
        chosen = known[:0]
        if self.config.acquisition == "random":
            values = torch.ones(len(population), dtype=torch.float64)
        else:
            belief = Belief(self._fit(measured, known), self.features, self.design.cost)
            acquisition = ACQUISITIONS[self.config.acquisition]
            front = self._front(belief)
            chosen = self._of_front(front, known, number)
            population = evolution.run(
                lambda u: acquisition(belief, u), torch.cat([front, population])
            )
            values = acquisition(belief, population)
        known = torch.cat([known, chosen])
        niche = evolution.niche(population)
        rest = diverse(population, values, niche, known, self.config.batch - len(chosen))
        return self.space.decode(torch.cat([chosen, rest]))

    def _most_informative(
        self, belief: Belief, population: Tensor, known: Tensor, number: int
    ) -> Tensor:
        """Some of the predicted front, and what then teaches most about random policies and it.

        Half of the weight lies on the policies spread over cost, half on those of the front.
        """
        front = self._front(belief)
        chosen = self._of_front(front, known, number)
        ahead = _new(torch.cat([chosen, front]), known)
        others = _new(population, torch.cat([known, ahead]))
        points = torch.cat([ahead, others])
        if not len(points):
            return points
        weight = torch.full((len(points),), 0.5 / max(len(others), 1), dtype=torch.float64)
        weight[: len(ahead)] = 0.5 / max(len(ahead), 1)
        with torch.no_grad():
            joint, noise = belief.predictor.covariance(self.features(points))
        picks = reduce_variance(joint, noise, weight, self.config.batch, range(len(chosen)))
        return points[picks]

    def _of_front(self, front: Tensor, known: Tensor, number: int) -> Tensor:
        """Those of the front that this round measures: new ones, spread over cost."""
        each = self.config.batch * _FRONT_SHARES.get(self.config.acquisition, 0.0)
        count = math.floor(number * each) - math.floor((number - 1) * each)  # also of small batches
        return _new(_spread_over(front, count, number), known)

    def _front(self, belief: Belief) -> Tensor:
        """The best predicted policies all over the cost range, `_FRONT x d`, from the ascent.

        Evolution alone would not come near them, and the front it is to improve on would be low.
        """
        shares = torch.linspace(0.0, 1.0, _FRONT + 1, dtype=torch.float64)[1:]
        limits = self.design.low * (self.design.high / self.design.low) ** shares
        solutions = optimize_many(
            lambda u: belief.predictor.posterior(self.features(u)),
            Limit("bops", "BOPs", lambda u: self.design.cost(u).bops, math.inf),
            limits,
            self.space.levels,
            OptimizeConfig(kappa=0.0),
            self.seed,
        )
        points = torch.stack([solution.u for solution in solutions])
        return points[self.design.inside(points)]

    def _fit(self, measured: Sequence[Measured], known: Tensor) -> Predictor:
        good = [i for i, m in enumerate(measured) if m.score is not None]
        if len(measured) < FEWEST_POLICIES:
            raise SeerNetError(
                f"the search space holds {len(measured)} policies within sample.cost_range, "
                f"{FEWEST_POLICIES} are needed to go on; widen the range, or refine the space."
            )
        if len(good) < FEWEST_POLICIES:
            raise SeerNetError(
                f"only {len(good)} of {len(measured)} measurements succeeded, {FEWEST_POLICIES} "
                "are needed to go on; lower sample.evaluation.learning_rate, or check the network."
            )
        scores = torch.tensor([measured[i].score for i in good], dtype=torch.float64)
        if bool((scores == scores[0]).all()):
            raise SeerNetError(
                f"all {len(good)} policies measured so far score {float(scores[0]):.4g}, so there "
                "is nothing to learn from them; lower sample.evaluation.learning_rate if that is "
                "chance, or widen sample.cost_range."
            )
        companions = [value for i in good if (value := measured[i].soft) is not None]
        complete = len(companions) == len(good)
        soft = torch.tensor(companions, dtype=torch.float64) if complete else None
        family = "gp" if self.predictor.family == "auto" else self.predictor.family
        return fit(family, self.features(known[good]), scores, self.predictor, self.seed, soft)


def _spread_over(front: Tensor, count: int, number: int) -> Tensor:
    """Pick `count` policies at even distances along a front; the first place shifts by round."""
    phase = (number * GOLDEN) % 1.0
    places = (torch.arange(count) + phase) / max(1, count) * len(front)
    return front[places.long().clamp(max=len(front) - 1)] if len(front) else front


def _new(points: Tensor, known: Tensor) -> Tensor:
    """Those of `points` that differ from each other and from all known policies, in order."""
    fresh = points[:0]
    for point in points[:, None]:
        if float(distances(point, torch.cat([known, fresh])).min()) > _SAME:
            fresh = torch.cat([fresh, point])
    return fresh
