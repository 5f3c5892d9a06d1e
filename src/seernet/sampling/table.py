"""`evaluations.csv`, one row a measurement: `sample` writes it, later stages learn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch

from seernet.policy import CostModel, Policy, SearchSpace
from seernet.sampling.active import Measured

if TYPE_CHECKING:
    from seernet.evaluation import Evaluation


def to_table(
    measured: Sequence[Measured], evaluations: Mapping[str, Evaluation], space: SearchSpace
) -> pd.DataFrame:
    """One row a measurement: where it comes from, its policy, its cost, and what it gave.

    Args:
        measured: Policies in order.
        evaluations: By the policy's key.
        space: The search space.
    """
    points = space.encode([m.policy for m in measured])
    bops = CostModel(space)(points).bops.round().to(torch.int64).tolist()
    rows = []
    for item, cost in zip(measured, bops, strict=True):
        evaluation = evaluations[item.policy.key()]
        rows.append(
            {
                "round": item.round,
                "origin": item.origin,
                **item.policy.to_row(),
                "cost_bops": cost,
                "score": evaluation.score,
                "soft_score": evaluation.soft_score,
                "train_macs": evaluation.train_macs,
                "final": evaluation.final,
                "error": evaluation.error,
            }
        )
    return pd.DataFrame(rows)


def policies_of(table: pd.DataFrame) -> list[Policy]:
    """The policies of a table's rows."""
    rows = table.to_dict("records")
    return [Policy.from_row({str(key): value for key, value in row.items()}) for row in rows]


def lessons(table: pd.DataFrame) -> pd.DataFrame:
    """What a table teaches; see `Evaluation.lesson`. What the machine failed teaches nothing."""
    table = table[table["score"].notna() | table["final"].astype(bool)].copy()
    table.loc[table["score"].isna(), ["score", "soft_score"]] = 0.0
    return table
