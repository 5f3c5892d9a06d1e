"""The files of one run, by name: where each lies, and which stage to run where it is missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from seernet.errors import ArtifactError
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
        return read_table(self.root / "results/tradeoff.csv", "collect")

    def metrics(self, stage: str, budget: str | None = None) -> dict[str, Any]:
        """What a stage measured, for one budget where it is a stage of budgets."""
        return read_metrics(self.root / "results/metrics", stage, budget)

    def evaluations(self) -> pd.DataFrame:
        """`evaluations.csv`: one row for each policy measured; `score` is empty where it failed."""
        return read_table(self.root / "data/evaluations/evaluations.csv", "sample")

    def cross_validation(self) -> pd.DataFrame:
        """Held-out predictions of every measurement: `family, score, mean, std`."""
        return read_table(self.root / "models/predictor/cross_validation.csv", "fit")

    def learning_curve(self) -> pd.DataFrame:
        """Held-out error on the first measurements: `evaluations, rmse, kendall_tau, r2`."""
        return read_table(self.root / "models/predictor/learning_curve.csv", "fit")

    def front(self) -> pd.DataFrame:
        """The best predicted score at each cost: `cost_bops, bops_ratio, mean, std`."""
        return read_table(self.root / "results/front.csv", "front")

    def graph(self) -> NetworkGraph:
        """The baseline network's layers and channel groups."""
        return NetworkGraph.load(self.root / "models/baseline/graph.json")

    def policy(self, budget: str) -> dict[str, Any]:
        """The policy that the search chose for one budget."""
        return read_json(self.root / f"models/policies/{budget}.json", f"optimize@{budget}")


def read_metrics(folder: Path, stage: str, budget: str | None = None) -> dict[str, Any]:
    """Read `<folder>/<stage>.json`, or `<folder>/<stage>/<budget>.json`.

    Raises:
        ArtifactError: If it is missing or is not a JSON object; the message names the stage.
    """
    if budget is None:
        return read_json(folder / f"{stage}.json", stage)
    return read_json(folder / stage / f"{budget}.json", f"{stage}@{budget}")


def read_json(path: Path, stage: str) -> dict[str, Any]:
    """Read a JSON object that `stage` wrote; see `read_metrics` for errors."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _missing(path, stage) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, stage, error) from error
    if not isinstance(document, dict):
        raise _damaged(path, stage, "not a JSON object")
    return document


def read_table(path: Path, stage: str) -> pd.DataFrame:
    """Read a CSV table that `stage` wrote; see `read_metrics` for errors."""
    try:
        # Names are text: a budget may be called `2024`, or `na`, which pandas would read as NaN.
        text = dict.fromkeys(("budget", "method", "origin", "family", "error"), str)
        return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    except FileNotFoundError as error:
        raise _missing(path, stage) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, stage, error) from error


def _missing(path: Path, stage: str) -> ArtifactError:
    return ArtifactError(f"{path} is missing; run its stage: `dvc repro {stage}`.")


def _damaged(path: Path, stage: str, cause: object) -> ArtifactError:
    cause = " ".join(str(cause).split())
    return ArtifactError(f"cannot read {path} ({cause}); write it again: `dvc repro -f {stage}`.")
