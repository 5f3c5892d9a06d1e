"""Problems for `policy_optimization.py`: additive ones solved exactly, and fitted predictors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from _shared import Array
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from seernet.config import ModelConfig, PredictorConfig, SpaceConfig
from seernet.models import build, trace
from seernet.optimization import Limit
from seernet.policy import CostModel, FeatureMap, SearchSpace
from seernet.predictor import Posterior, fit
from seernet.sampling import SpreadDesign

NETWORKS = {"ResNet-20": "resnet20", "MobileNetV2": "torchvision:mobilenet_v2"}
FLOOR, SPAN = 0.3, 0.65  # scores of the cheapest policy, and from there to the dearest


@dataclass(frozen=True)
class Case:
    """One thing to optimize.

    Attributes:
        network: Key of `NETWORKS`.
        space: Its search space.
        cost: Its cost model.
        predict: Posterior of relaxed policies.
        budget: Largest BOPs.
        kappa: Standard deviations subtracted from the mean.
        truth: True scores of relaxed policies.
    """

    network: str
    space: SearchSpace
    cost: CostModel
    predict: Callable[[Tensor], Posterior]
    budget: float
    kappa: float
    truth: Callable[[Tensor], Tensor]

    @property
    def limit(self) -> Limit:
        """The budget as a limit."""
        return Limit("bops", "BOPs", lambda u: self.cost(u).bops, self.budget)

    def objective(self, u: Tensor) -> Tensor:
        """What is maximized, at `n x d` policies: `n`."""
        mean, variance = self.predict(u)
        return mean - self.kappa * variance.clamp_min(1e-18).sqrt()

    def load(self, u: Tensor) -> Tensor:
        """Cost over budget of `n x d` policies: `n`; at most 1 is feasible."""
        return self.cost(u).bops / self.budget


@cache
def space_of(network: str) -> SearchSpace:
    """The default search space of a network for 32 x 32 pixels and ten classes."""
    model = build(ModelConfig(name=NETWORKS[network]), 10, (3, 32, 32))
    return SearchSpace(trace(model, (3, 32, 32)), SpaceConfig())


@dataclass(frozen=True)
class Gains:
    """What each level of each coordinate adds to a score: concave, as damage is in truth.

    Attributes:
        space: The search space.
        weight: Gain from the lowest to the highest level, `d`.
    """

    space: SearchSpace
    weight: Tensor

    @classmethod
    def draw(cls, space: SearchSpace, seed: int) -> Gains:
        """Draw weights over two orders of magnitude; pruning counts more than bits."""
        random = np.random.default_rng(seed)
        weight = random.lognormal(0.0, 1.0, space.dimension)
        weight *= [3.0 if c.kind == "pruning_ratio" else 1.0 for c in space.coordinates]
        return cls(space, torch.from_numpy(SPAN * weight / weight.sum()))

    def shares(self, u: Tensor) -> Tensor:
        """Share of each coordinate's gain that is reached, `n x d`."""
        value, low, high = self.space.physical(u), self.space.low, self.space.high
        lost, most = 1.0 - value / high, 1.0 - low / high
        kept = 1.0 - (lost / most.clamp_min(1e-12)).square()
        noise = (4.0**-value - 4.0**-high) / (4.0**-low - 4.0**-high)
        pruned = torch.tensor([c.kind == "pruning_ratio" for c in self.space.coordinates])
        return torch.where(pruned, kept, 1.0 - noise)

    def predict(self, u: Tensor) -> Posterior:
        """The additive score, without doubt."""
        mean = self.score(u)
        return Posterior(mean, torch.zeros_like(mean))

    def score(self, u: Tensor) -> Tensor:
        """The score itself, `n`."""
        return FLOOR + self.shares(u) @ self.weight

    def table(self, coordinate: int) -> Array:
        """Gain of each level of a coordinate."""
        levels = self.space.levels[coordinate]
        u = torch.ones(len(levels), self.space.dimension, dtype=torch.float64)
        u[:, coordinate] = levels
        gains = self.shares(u)[:, coordinate] * self.weight[coordinate]
        found: Array = gains.numpy()
        return found


def additive_case(network: str, seed: int) -> tuple[Case, Gains]:
    """A random additive problem, its budget anywhere between cheapest and dearest policy."""
    space = space_of(network)
    cost, gains = CostModel(space), Gains.draw(space, seed)
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, space.dimension)
    low, high = cost(ends).bops.tolist()
    share = np.random.default_rng(10_000 + seed).uniform(0.05, 0.9)
    budget = float(int(low * (high / low) ** share))
    return Case(network, space, cost, gains.predict, budget, 0.0, gains.score), gains


class Program:
    """The additive problem as a mixed-integer linear program.

    Binary variables say which width each group has, and for each layer which combination of input
    width, output width and pair of bit-widths: its BOPs are their product, so a combination is
    what makes them linear. Of the pairs of bit-widths only those are kept that no cheaper pair
    betters.
    """

    def __init__(self, space: SearchSpace, gains: Gains) -> None:
        self.space, self.gains = space, gains
        self._column = {(c.kind, c.name): i for i, c in enumerate(space.coordinates)}
        self._gain: list[float] = []
        self._cost: list[float] = []
        self._entries: list[tuple[int, int, float]] = []  # row, column, value
        self._sums: list[float] = []
        self._widths: dict[str, int] = {}  # first variable of each group
        for group in space.graph.groups:
            table = gains.table(self._column["pruning_ratio", group.name])
            self._widths[group.name] = len(self._gain)
            self._row(range(len(self._gain), len(self._gain) + len(table)), 1.0)
            self._gain += table.tolist()
            self._cost += [0.0] * len(table)
        for layer in space.graph.layers:
            self._layer(layer)

    def solve(self, budget: float, seconds: float) -> tuple[float, float]:
        """Best score found and the proven bound on it, within a time limit."""
        n = len(self._gain)
        rows, columns, values = zip(*self._entries, strict=True)
        matrix = sparse.csr_matrix((values, (rows, columns)), shape=(len(self._sums), n))
        price = np.array([self._cost]) / budget
        found = milp(
            -np.array(self._gain),
            constraints=[
                LinearConstraint(matrix, self._sums, self._sums),
                LinearConstraint(price, -np.inf, 1.0),
            ],
            integrality=np.ones(n),
            bounds=Bounds(0, 1),
            # Presolving takes longer than solving here.
            options={"time_limit": seconds, "mip_rel_gap": 1e-5, "presolve": False},
        )
        best = -np.inf if found.fun is None else FLOOR - found.fun
        return float(best), float(FLOOR - found.mip_dual_bound)

    def _row(self, ones: range, total: float) -> int:
        """One more equation: these variables sum to a total."""
        row = len(self._sums)
        self._sums.append(total)
        self._entries += [(row, column, 1.0) for column in ones]
        return row

    def _layer(self, layer: object) -> None:
        inputs, outputs = list(layer.inputs), list(layer.outputs)  # type: ignore[attr-defined]
        if layer.depthwise:  # type: ignore[attr-defined]
            inputs = []
        if len(inputs) > 1 or len(outputs) > 1:
            raise ValueError("a layer with several groups on one side is not modelled here")
        before, after = self._counts(inputs), self._counts(outputs)
        pairs = self._pairs(layer.name)  # type: ignore[attr-defined]
        unit = layer.macs / (before[-1] * after[-1])  # type: ignore[attr-defined]
        first = len(self._gain)
        for wide in before:
            for narrow in after:
                self._gain += [gain for _, gain in pairs]
                self._cost += [unit * wide * narrow * product for product, _ in pairs]
        index = np.arange(first, len(self._gain)).reshape(len(before), len(after), len(pairs))
        if not inputs and not outputs:
            self._row(range(first, len(self._gain)), 1.0)
        for names, blocks in ((inputs, index), (outputs, index.swapaxes(0, 1))):
            for name in names:
                for level, block in enumerate(blocks):
                    row = self._row(range(0), 0.0)
                    self._entries += [(row, int(column), 1.0) for column in block.ravel()]
                    self._entries.append((row, self._widths[name] + level, -1.0))

    def _counts(self, names: list[str]) -> list[int]:
        """Channel counts of the one group, or a constant."""
        if not names:
            return [1]
        return list(self.space.coordinates[self._column["pruning_ratio", names[0]]].values)

    def _pairs(self, name: str) -> list[tuple[float, float]]:
        """Products of weight and input bits that are worth their cost, and their gains."""
        if name in self.space.fixed_bits:
            return [(float(self.space.fixed_bits[name]) ** 2, 0.0)]
        weight, act = (self._column[kind, name] for kind in ("weight_bits", "act_bits"))
        every = sorted(
            (float(w * a), -(x + y))
            for w, x in zip(
                self.space.coordinates[weight].values, self.gains.table(weight), strict=True
            )
            for a, y in zip(self.space.coordinates[act].values, self.gains.table(act), strict=True)
        )
        kept: list[tuple[float, float]] = []
        for product, negative in every:
            if not kept or -negative > kept[-1][1] + 1e-12:
                kept.append((product, -negative))
        return kept


class Interacting:
    """A true score with damage that multiplies between places: nothing a sum would describe."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.gains = Gains.draw(space, seed)
        self.weight = 2.0 * self.gains.weight / SPAN
        pairs = random.integers(0, space.dimension, (2, 3 * space.dimension))
        self.first, self.second = torch.from_numpy(pairs)
        strength = random.exponential(1.0, 3 * space.dimension)
        self.strength = torch.from_numpy(strength / strength.sum() * space.dimension)

    def __call__(self, u: Tensor) -> Tensor:
        """True scores of `n x d` policies: `n`."""
        damage = self.weight * (1.0 - self.gains.shares(u))
        crossed = damage[:, self.first] * damage[:, self.second] * self.strength
        return 0.1 + 0.85 * torch.exp(-damage.sum(dim=1) - crossed.sum(dim=1))


def fitted_cases(network: str, rows: int, seed: int) -> list[Case]:
    """The library's predictor, fitted to noisy measurements of an interacting score, 3 budgets."""
    space = space_of(network)
    cost, features, truth = CostModel(space), FeatureMap(space), Interacting(space, seed)
    cheapest = torch.zeros(1, space.dimension, dtype=torch.float64)
    whole = float(cost.baseline().bops)
    low = float(cost(cheapest).bops) / whole
    points = SpreadDesign(space, (1.2 * low, 0.02), seed).draw_many(0, rows)
    noise = torch.randn(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores = (truth(points) + 0.01 * noise).clamp(0.0, 1.0)
    predictor = fit("gp", features(points), scores, PredictorConfig(), seed)

    def predict(u: Tensor) -> Posterior:
        return predictor.posterior(features(u))

    shares = (0.0015, 0.003, 0.008)
    return [Case(network, space, cost, predict, share * whole, 2.0, truth) for share in shares]
