"""The rivals of `regret.py`: what each measures and chooses, looked up in one table.

A method sees one measured score of each policy that it asks for, and may ask for a given number of
different policies. It then names, for each budget, one policy within it: a row of the table. Where
nothing that a method has measured fits, it takes the cheapest policy of the space.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _regret_table import Table
from _shared import Array
from numpy.typing import NDArray

from seernet.config import Params
from seernet.optimization import Limit, optimize
from seernet.policy import Bound, CostModel, FeatureMap, Policy
from seernet.predictor import fit, select
from seernet.sampling import ActiveSampler, Measured, SpreadDesign, uniform_candidates
from seernet.sampling.uniform import all_uniform

Rows = list[int]
RANDOM_SEED = 7919
POPULATION = 16  # of the evolutionary search; 8 is worse at every number of measurements


@dataclass(frozen=True)
class Task:
    """One repetition: what can be seen, and of what a choice is made.

    Attributes:
        table: All policies.
        seen: Column of the measurement that a search sees of each policy, `n`.
        seed: Of a method's own randomness.
        budgets: Largest BOPs of each budget, increasing.
        by_soft: Whether rivals go by soft scores; what they choose is judged by scores.
    """

    table: Table
    seen: NDArray[np.int64]
    seed: int
    budgets: Array
    by_soft: bool = False

    @property
    def signal(self) -> Array:
        """What a rival sees of each policy, `n`."""
        return self.soft if self.by_soft else self.score

    @property
    def score(self) -> Array:
        """The score that is seen of each policy, `n`."""
        return self._seen(self.table.scores)

    @property
    def soft(self) -> Array:
        """The soft score of the same measurement, `n`."""
        return self._seen(self.table.soft)

    @property
    def truth(self) -> Array:
        """Mean score of the measurements that no search sees, `n`."""
        scores = self.table.scores
        return (scores.sum(axis=1) - self.score) / (scores.shape[1] - 1)

    def _seen(self, values: Array) -> Array:
        return values[np.arange(len(self.seen)), self.seen]

    def best(self, values: Array, among: Iterable[int] | None = None) -> Rows:
        """For each budget the row of the highest value that fits; of equal ones, the dearest."""
        costs = self.table.costs
        known = np.zeros(len(costs), dtype=bool)
        known[list(range(len(costs)) if among is None else among)] = True
        order = np.lexsort((costs, values))[::-1]
        found = []
        for budget in self.budgets:
            fits = order[(known & (costs <= budget))[order]]
            found.append(int(fits[0]) if len(fits) else int(costs.argmin()))
        return found


def oracle(task: Task) -> Rows:
    """Knows the single measurement of every policy, and nothing else."""
    return task.best(task.signal)


def random_search(task: Task, count: int) -> Rows:
    """The best of policies spread over cost at random, as the pipeline's rival draws them."""
    table = task.table
    ends = (table.costs.min(), table.costs.max())
    baseline = float(SpreadDesign(table.space, (1e-9, 1.0), 0).cost.baseline().bops)
    low, high = (float(end) / baseline for end in ends)
    design = SpreadDesign(table.space, (low * (1 - 1e-9), high * (1 + 1e-9)), task.seed)
    found = dict.fromkeys(table.rows(design.draw_many(RANDOM_SEED, 16 * count)))
    return task.best(task.signal, list(found)[:count])


def blind_search(task: Task, count: int) -> Rows:
    """The best of policies drawn from the table, all with the same chance."""
    generator = np.random.default_rng(task.seed)
    return task.best(task.signal, generator.permutation(len(task.signal))[:count].tolist())


def uniform(task: Task, count: int) -> Rows:
    """The best policy that has one pruning ratio and two bit-widths everywhere.

    If not all can be measured: of each budget in turn the dearest that no other dominates, as the
    pipeline's rival takes them, and then the others, dearest first.
    """
    table = task.table
    rest = table.rows(all_uniform(table.space)[0])
    rest.sort(key=lambda row: -table.costs[row])
    queues = []
    for budget in task.budgets:
        limit = Bound("bops", float(budget))
        first = table.rows(uniform_candidates(CostModel(table.space), [limit], 8))
        queues.append([*first, *(row for row in rest if table.costs[row] <= budget)])
    return task.best(task.signal, in_turn(queues, count))


def in_turn(queues: Sequence[Rows], count: int, measured: Iterable[int] = ()) -> dict[int, None]:
    """Measure the next new policy of each queue in turn, up to `count` with those measured."""
    found = dict.fromkeys(measured)
    waiting = [iter(queue) for queue in queues]
    while waiting:
        for queue in list(waiting):
            row = next((row for row in queue if row not in found), None)
            if row is None:
                waiting.remove(queue)
            elif len(found) < count:
                found[row] = None
            else:
                return found
    return found


def evolution(task: Task, count: int) -> Rows:
    """NSGA-II over error and cost, until `count` different policies are measured."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.ux import UX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling

    levels = task.table.levels
    place = {tuple(row): i for i, row in enumerate(levels.tolist())}
    top = levels.max(axis=0)
    measured: dict[int, None] = {}
    algorithm = NSGA2(
        pop_size=POPULATION,
        sampling=IntegerRandomSampling(),
        crossover=UX(),
        mutation=PM(eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    problem = Problem(n_var=len(top), n_obj=2, xl=np.zeros(len(top)), xu=top, vtype=int)
    algorithm.setup(problem, termination=("n_gen", 1000), seed=task.seed, verbose=False)
    while len(measured) < count and algorithm.has_next():
        population = algorithm.ask()
        rows = [place[tuple(int(v) for v in x)] for x in population.get("X")]
        measured |= dict.fromkeys(rows)
        error, cost = 1.0 - task.signal[rows], np.log(task.table.costs[rows])
        population.set("F", np.stack([error, cost], axis=1))
        for individual in population:
            individual.evaluated.add("F")
        algorithm.tell(infills=population)
    return task.best(task.signal, list(measured)[:count])


def knapsack(task: Task, count: int) -> Rows:
    """Sensitivities of single places add up: the best such sum within the budget."""
    values, rows = additive(task)
    if len(rows) > count:
        raise ValueError(f"{len(rows)} single places are more than {count} measurements.")
    return task.best(values)


def knapsack_checked(task: Task, count: int) -> Rows:
    """The same, and the measurements that are left go to the best sums of each budget in turn."""
    values, rows = additive(task)
    costs = task.table.costs
    order = np.lexsort((costs, values))[::-1]
    queues = [order[costs[order] <= budget].tolist() for budget in task.budgets]
    return task.best(task.signal, in_turn(queues, count, rows))


def additive(task: Task) -> tuple[Array, Rows]:
    """Sum of the losses of single places for every policy, negated, and the rows it measured.

    A place's loss is the score of the dearest policy less that of the policy that is compressed
    there alone; noise must not make it negative, or smaller with more compression.
    """
    levels = task.table.levels
    top = levels.max(axis=0)
    below = top - levels
    dearest = int(np.flatnonzero((below == 0).all(axis=1))[0])
    total = np.zeros(len(levels))
    rows = [dearest]
    for place in range(len(top)):
        alone = np.flatnonzero((np.delete(below, place, axis=1) == 0).all(axis=1))
        alone = alone[np.argsort(levels[alone, place])]  # cheapest first, the dearest policy last
        rows += alone[:-1].tolist()
        losses = (task.signal[dearest] - task.signal[alone]).clip(min=0.0)
        losses = np.maximum.accumulate(losses[::-1])[::-1]
        total += losses[levels[:, place]]
    return -total, rows


def seernet(task: Task, params: Params, counts: Sequence[int]) -> dict[str, dict[str, Any]]:
    """SeerNet as its stages run it, after each of some numbers of measurements.

    The first n policies of a longer search are those of the shorter, so one search serves all.

    Returns:
        For each number the rows chosen for the budgets, the family of the predictor, and the
        rows measured.
    """
    table, space = task.table, task.table.space
    sample = params.sample.model_copy(update={"evaluations": max(counts)})
    sampler = ActiveSampler(space, sample, params.predictor, task.seed, table.sensitivity)
    place = {policy.key(): i for i, policy in enumerate(space.decode(table.points))}
    score, soft = task.score, task.soft

    def measure(policies: Sequence[Policy]) -> list[float]:
        return [float(score[place[policy.key()]]) for policy in policies]

    measured = sampler.run(measure, lambda policy: float(soft[place[policy.key()]]))
    found = {}
    for count in counts:
        rows = [place[m.policy.key()] for m in measured[:count]]
        family, chosen = solve(task, params, measured[:count])
        found[str(count)] = {"chosen": chosen, "family": family, "measured": rows}
    return found


def solve(task: Task, params: Params, measured: Sequence[Measured]) -> tuple[str, Rows]:
    """Fit the predictor as `stages/fit.py` does, and choose as `stages/optimize.py` does."""
    space = task.table.space
    features = FeatureMap(space, task.table.sensitivity)
    known = space.encode([m.policy for m in measured])
    inputs = features(known)
    scores, soft = (
        torch.tensor(values, dtype=torch.float64)
        for values in ([m.score for m in measured], [m.soft for m in measured])
    )
    family, _ = select(inputs, scores, params.predictor, task.seed, soft)
    predictor = fit(family, inputs, scores, params.predictor, task.seed, soft)
    points = []
    for budget in task.budgets:
        limit = Limit("bops", "BOPs", lambda u: features.cost(u).bops, float(budget))
        solution = optimize(
            lambda u: predictor.posterior(features(u)),
            [limit],
            space.levels,
            params.optimize,
            task.seed,
            known,
        )
        points.append(solution.u)
    return family, task.table.rows(torch.stack(points))
