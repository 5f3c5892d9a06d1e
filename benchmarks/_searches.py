"""The searches that `active_sampling.py` compares, and test policies that none of them knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from _shared import Array
from torch import Tensor

from seernet.config import Params
from seernet.evaluation import Evaluation, EvaluationSpec, Measurer
from seernet.optimization import Limit, optimize_many
from seernet.parallel import completed
from seernet.policy import FeatureMap, Policy, SearchSpace, Sensitivity
from seernet.predictor import Predictor, fit
from seernet.progress import Bar
from seernet.sampling import ActiveSampler, Measured, SpreadDesign
from seernet.store import Store, default_root

GUIDES = ("frontier", "random")  # searches whose measurements tell where near-optimal policies are
GUIDE_SEED = 15_485_863
TEST_SEED = 32_452_843
MOVES = 3


class Here(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@dataclass(frozen=True)
class Bench:
    """What all searches share; passed to worker processes."""

    params: Params
    space: SearchSpace
    sensitivity: Sensitivity

    @property
    def features(self) -> FeatureMap:
        """Of every predictor."""
        return FeatureMap(self.space, self.sensitivity)

    @property
    def store(self) -> Store:
        """Where everything measured is kept."""
        return Store(default_root() / "evaluations.sqlite")

    def spec(self, repetition: int = 0) -> EvaluationSpec:
        """How policies are measured; a repetition draws all that is random anew."""
        spec = EvaluationSpec.of(self.params)
        return replace(spec, seed=spec.seed + repetition)

    def sampler(self, acquisition: str, seed: int) -> ActiveSampler:
        """The library's search, with one acquisition."""
        sample = self.params.sample.model_copy(update={"acquisition": acquisition})
        return ActiveSampler(self.space, sample, self.params.predictor, seed, self.sensitivity)

    def search(self, name: str, seed: int) -> list[Measured]:
        """Run one search in this process."""
        measurer = Measurer(self.spec(), self.store, Here())
        seen: dict[str, Evaluation] = {}

        def measure(policies: Sequence[Policy]) -> list[float | None]:
            found = measurer(policies)
            seen.update({p.key(): e for p, e in zip(policies, found, strict=True)})
            return [evaluation.lesson[0] for evaluation in found]

        if name != "naive":
            run = self.sampler(name, seed).run
            return run(measure, lambda policy: seen[policy.key()].lesson[1])
        generator = torch.Generator().manual_seed(seed)
        shape = self.params.sample.evaluations, self.space.dimension
        points = torch.rand(shape, generator=generator, dtype=torch.float64)
        policies = self.space.decode(self.space.round(points))
        scores = measure(policies)
        return [
            Measured(0, "initial", p, s, seen[p.key()].lesson[1])
            for p, s in zip(policies, scores, strict=True)
        ]

    def fit(self, measured: Sequence[Measured]) -> Predictor:
        """The library's Gaussian process on measurements; what the machine failed is left out."""
        good = [m for m in measured if m.score is not None]
        scores, soft = (
            torch.tensor([getattr(m, name) for m in good], dtype=torch.float64)
            for name in ("score", "soft")
        )
        points = self.features(self.space.encode([m.policy for m in good]))
        return fit("gp", points, scores, self.params.predictor, 0, soft)


Job = tuple[Bench, str, int]
Curve = dict[int, Array]  # predictions of the test policies, by the number of measurements


def guide(job: Job) -> list[Measured]:
    """One search, in a worker process."""
    bench, name, seed = job
    torch.set_num_threads(1)
    return bench.search(name, seed)


def curve(job: tuple[Job, list[Policy]]) -> tuple[Curve, list[Measured]]:
    """What the first measurements of a search predict of the test policies; and the search."""
    (bench, name, seed), test = job
    torch.set_num_threads(1)
    measured = bench.search(name, seed)
    points = bench.features(bench.space.encode(test))
    sample = bench.params.sample
    found: Curve = {}
    for count in range(sample.initial, len(measured) + 1, sample.batch):
        predictor = bench.fit(measured[:count])
        with torch.no_grad():
            found[count] = predictor.posterior(points).mean.numpy()
    return found, measured


def test_policies(bench: Bench, count: int, executor: Executor, shown: Bar) -> list[Policy]:
    """Half spread at random over cost, half near the optimum at costs all over the range."""
    space, (low, high) = bench.space, bench.params.sample.cost_range
    spread = SpreadDesign(space, (low, high), TEST_SEED).draw_many(0, count // 2)
    jobs: list[Job] = [(bench, name, GUIDE_SEED) for name in GUIDES]
    measured: list[Measured] = []
    for _, part in completed(executor, guide, jobs):
        measured += part
        shown.update(len(part))
    predictor = bench.fit(sorted(measured, key=lambda m: m.policy.key()))
    design = SpreadDesign(space, (low, high), TEST_SEED)
    shares = torch.linspace(0.05, 0.95, count - count // 2, dtype=torch.float64)
    solutions = optimize_many(
        lambda u: predictor.posterior(bench.features(u)),
        Limit("bops", "BOPs", lambda u: design.cost(u).bops, math.inf),
        design.low * (design.high / design.low) ** shares,
        space.levels,
        bench.params.optimize,
        TEST_SEED,
    )
    near = torch.stack([solution.u for solution in solutions])
    return space.decode(torch.cat([spread, _disturbed(space, near)]))


def _disturbed(space: SearchSpace, points: Tensor) -> Tensor:
    """Draw some coordinates of two of three points anew: no search is to know these optima."""
    generator = torch.Generator().manual_seed(TEST_SEED)
    points = points.clone()
    for row in range(len(points)):
        if row % 3:
            moved = torch.randperm(space.dimension, generator=generator)[:MOVES]
            points[row, moved] = torch.rand(MOVES, generator=generator, dtype=points.dtype)
    return space.round(points)


def truth_of(
    bench: Bench, policies: Sequence[Policy], repetitions: int, executor: Executor, shown: Bar
) -> Array:
    """Mean scores of test policies over repetitions: `n`."""
    rows = []
    for repetition in range(1, repetitions + 1):
        found = Measurer(bench.spec(repetition), bench.store, executor, shown)(policies)
        rows.append([math.nan if e.score is None else e.score for e in found])
    return np.nanmean(np.array(rows), axis=0)
