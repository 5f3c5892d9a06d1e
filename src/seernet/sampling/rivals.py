"""What SeerNet is compared with: of one budget, the best uniform and the best random policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from seernet.policy import Bound, CostModel, Policy
from seernet.sampling.table import policies_of
from seernet.sampling.uniform import uniform_candidates

if TYPE_CHECKING:
    from seernet.evaluation import Evaluation

Choice = tuple[Policy | None, dict[str, Any]]
"""A policy and how it was chosen, or None and the `reason` why there is none."""


def best_uniform(
    cost: CostModel,
    limits: Sequence[Bound],
    measure: Callable[[Sequence[Policy]], Sequence[Evaluation]],
) -> Choice:
    """Of the eight costliest non-dominated uniform policies that fit, the best measured one.

    Args:
        cost: Costs of the search space.
        limits: The budget's limits.
        measure: The short evaluation, of policies in order.
    """
    policies = cost.space.decode(uniform_candidates(cost, limits))
    if not policies:
        return None, {"reason": "no uniform policy of the space fits the budget"}
    found = measure(policies)
    scored = [(e.score, -i) for i, e in enumerate(found) if e.score is not None]
    if not scored:
        return None, {"reason": f"all uniform measurements failed: {found[0].error}"}
    score, index = max(scored)
    spent = sum(evaluation.train_macs for evaluation in found)
    details = {"short_score": score, "candidates": len(found), "short_train_macs": spent}
    return policies[-index], details


def best_random(cost: CostModel, limits: Sequence[Bound], table: pd.DataFrame) -> Choice:
    """Of the random policies that `sample` measured and that fit, the best measured one.

    Args:
        cost: Costs of the search space.
        limits: The budget's limits.
        table: `evaluations.csv`.
    """
    table = table[(table["origin"] == "random") & table["score"].notna()].reset_index(drop=True)
    policies = policies_of(table)
    fits = torch.ones(len(policies), dtype=torch.bool)
    if policies:
        points = cost.space.encode(policies)
        for limit in limits:
            fits &= limit.evaluate(cost, points) <= limit.limit
    inside = table[fits.numpy()]
    if inside.empty:
        return None, {"reason": "none of the random policies that were measured fits the budget"}
    best = int(fits.nonzero()[int(inside["score"].to_numpy().argmax())])
    details = {"short_score": float(inside["score"].max()), "candidates": len(inside)}
    return policies[best], details
