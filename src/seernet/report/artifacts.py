"""The files of one run, by name: where each lies, and which stage to run where it is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from seernet import artifacts
from seernet.artifacts import read_json, read_table
from seernet.graph import NetworkGraph


@dataclass(frozen=True)
class Artifacts:
    """Reads what the stages of one run wrote.

    Every method raises `ArtifactError`, naming the stage to run, where its file is missing or
    damaged.

    Attributes:
        root: The repository root, which holds `data/`, `models/` and `results/`.
    """

    root: Path = Path()

    def tradeoff(self) -> pd.DataFrame:
        """`results/tradeoff.csv`: one row for each budget, method and seed."""
        return read_table(self.root / artifacts.TRADEOFF, "collect")

    def metrics(self, stage: str, budget: str | None = None) -> dict[str, Any]:
        """What a stage measured, for one budget where it is a stage of budgets."""
        return read_metrics(self.root / artifacts.METRICS, stage, budget)

    def evaluations(self) -> pd.DataFrame:
        """`evaluations.csv`: one row for each policy measured; `score` is empty where it failed."""
        return read_table(self.root / artifacts.EVALUATIONS, "sample")

    def cross_validation(self) -> pd.DataFrame:
        """Held-out predictions of every measurement: `family, score, mean, std`."""
        return read_table(self.root / artifacts.CROSS_VALIDATION, "fit")

    def learning_curve(self) -> pd.DataFrame:
        """Held-out error on the first measurements: `evaluations, rmse, kendall_tau, r2`."""
        return read_table(self.root / artifacts.LEARNING_CURVE, "fit")

    def front(self) -> pd.DataFrame:
        """The best predicted score at each cost in BOPs: `mean` and `std`, and the other costs."""
        return read_table(self.root / artifacts.FRONT, "front")

    def graph(self) -> NetworkGraph:
        """The baseline network's layers and channel groups."""
        return NetworkGraph.load(self.root / artifacts.GRAPH)

    def policy(self, budget: str) -> dict[str, Any]:
        """The policy that the search chose for one budget."""
        return read_json(self.root / artifacts.POLICIES / f"{budget}.json", f"optimize@{budget}")


def read_metrics(folder: Path, stage: str, budget: str | None = None) -> dict[str, Any]:
    """Read `<folder>/<stage>.json`, or `<folder>/<stage>/<budget>.json`.

    Raises:
        ArtifactError: If it is missing or is not a JSON object; the message names the stage.
    """
    if budget is None:
        return read_json(folder / f"{stage}.json", stage)
    return read_json(folder / stage / f"{budget}.json", f"{stage}@{budget}")
