"""Evolutionary search for candidates of high acquisition, all over the cost range.

Policies of one cost compete with each other only: the range is divided into niches, equally wide in
log cost, and each keeps its best. Otherwise every candidate would come from where scores are lowest
and least certain.

Source:
    Mouret & Clune (2015), Illuminating search spaces by mapping elites, for the niches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.sampling.design import SpreadDesign

Value = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Evolution:
    """How to search.

    Attributes:
        design: The cost range, and the space.
        niches: Cost classes, each with its own share of the population.
        generations: Rounds of crossover and mutation.
        seed: Seed of both.
    """

    design: SpreadDesign
    niches: int
    generations: int
    seed: int

    def run(self, value: Value, start: Tensor) -> Tensor:
        """Search the discrete policies inside the design's cost range for high values.

        Parents and children compete together, so a niche's best is never lost.

        Args:
            value: Acquisition of `n x d` policies, `n`; may depend on who else is among them.
            start: First population, `n x d`, discrete, inside the range.

        Returns:
            The last population, `m x d` without repetition, m <= n.
        """
        generator = torch.Generator().manual_seed(self.seed)
        population = _unique(start)
        share = max(1, len(start) // self.niches)
        for _ in range(self.generations):
            children = self._children(population, value(population), generator)
            population = _unique(torch.cat([population, children]))
            population = population[self._best(population, value(population), share)]
        return population

    @property
    def _steps(self) -> Tensor:
        """Distance between neighbouring levels of each coordinate."""
        counts = [len(c.values) for c in self.design.space.coordinates]
        return 1.0 / torch.tensor([max(1, n - 1) for n in counts], dtype=torch.float64)

    def niche(self, u: Tensor) -> Tensor:
        """Cost class of `n x d` policies: `n` integers."""
        low, high = self.design.low, self.design.high
        bops = self.design.cost(u).bops
        position: Tensor = (bops / low).log() / math.log(high / low)
        return (position * self.niches).long().clamp(0, self.niches - 1)

    def _best(self, population: Tensor, values: Tensor, share: int) -> Tensor:
        """Indices of the best `share` of each niche."""
        order = values.argsort(descending=True, stable=True)
        niche = self.niche(population)[order]
        same = niche[:, None] == torch.arange(self.niches)
        rank = same.cumsum(dim=0)[torch.arange(len(niche)), niche]
        return order[rank <= share]

    def _children(self, population: Tensor, values: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform crossover of tournament winners, then about two mutations each.

        A mutation is a step to a neighbouring level or, as often, a fresh draw.
        """
        size, dimension = population.shape
        pairs = torch.randint(size, (2, 2, size), generator=generator)
        winners = torch.where(values[pairs[0]] >= values[pairs[1]], pairs[0], pairs[1])
        mix = torch.rand(size, dimension, generator=generator) < 0.5
        children = torch.where(mix, population[winners[0]], population[winners[1]])
        mutate = torch.rand(size, dimension, generator=generator) < 2.0 / dimension
        fresh = torch.rand(size, dimension, generator=generator, dtype=population.dtype)
        toss = torch.rand(2, size, dimension, generator=generator)
        step = torch.where(toss[0] < 0.5, self._steps, -self._steps)
        moved = torch.where(toss[1] < 0.5, (children + step).clamp(0.0, 1.0), fresh)
        children = self.design.space.round(torch.where(mutate, moved, children))
        return children[self.design.inside(children)]


def distances(left: Tensor, right: Tensor) -> Tensor:
    """Distances of `n x d` and `m x d` policies, `n x m`; exactly 0 between equal ones.

    As a matrix product, which torch takes beyond 25 rows, they would come out near 1e-7.
    """
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")


def diverse(population: Tensor, values: Tensor, niche: Tensor, known: Tensor, count: int) -> Tensor:
    """Pick a batch of high values that is not a batch of near-twins.

    Greedy, one niche after the other: each pick maximises its value times the distance to the
    nearest policy that is measured or picked already, capped at the median distance.

    Args:
        population: `m x d` policies.
        values: Their acquisition, `m`, non-negative.
        niche: Their cost classes, `m`.
        known: `k x d` policies that are measured already.
        count: Size of the batch; fewer come back if the population holds fewer new ones.

    Returns:
        At most `count x d` policies.
    """
    if count <= 0:
        return population[:0]
    nearest = distances(population, known).amin(dim=1)
    pairs = torch.pdist(population)
    typical = pairs.median().clamp(min=1e-9) if len(pairs) else nearest.new_tensor(1.0)
    picked: list[int] = []
    classes = sorted(set(niche.tolist()))
    for turn in range(len(population)):
        merit = values.clamp(min=1e-30) * (nearest / typical).clamp(max=1.0)
        merit[(niche != classes[turn % len(classes)]) | (nearest <= 1e-9)] = -1.0
        best = int(merit.argmax())
        if float(merit[best]) >= 0.0:
            picked.append(best)
            nearest = torch.minimum(nearest, distances(population, population[best][None])[:, 0])
        if len(picked) == count:
            break
    return population[picked]


def _unique(population: Tensor) -> Tensor:
    """Without repetition, in order of first appearance."""
    _, index = torch.unique(population, dim=0, return_inverse=True)
    first = torch.full((int(index.max()) + 1,), len(index), dtype=torch.long)
    first.scatter_reduce_(0, index, torch.arange(len(index)), "amin")
    return population[first.sort().values]
