"""Where the stages' files lie, and how they are read; JSON files are complete or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seernet.errors import ArtifactError

if TYPE_CHECKING:
    import pandas as pd

PREPARED = Path("data/prepared")
BASELINE = Path("models/baseline")
GRAPH = BASELINE / "graph.json"
LATENCY = Path("models/latency.json")
EVALUATIONS = Path("data/evaluations/evaluations.csv")
SENSITIVITIES = Path("data/evaluations/sensitivities.json")
PREDICTOR = Path("models/predictor")
PREDICTOR_SENSITIVITIES = PREDICTOR / "sensitivities.json"
PREDICTOR_POLICIES = PREDICTOR / "policies.json"
CROSS_VALIDATION = PREDICTOR / "cross_validation.csv"
LEARNING_CURVE = PREDICTOR / "learning_curve.csv"
POLICIES = Path("models/policies")
FINETUNED = Path("models/finetuned")
EXPORTED = Path("models/exported")
METRICS = Path("results/metrics")
TRAINING = Path("results/training")
FRONT = Path("results/front.csv")
TRADEOFF = Path("results/tradeoff.csv")
FIGURES = Path("results/figures")
NOTEBOOKS = Path("results/notebooks")
PAGE = Path("results/report/index.html")


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file atomically, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path, stage: str) -> dict[str, Any]:
    """Read a JSON file that a stage writes.

    Raises:
        ArtifactError: If it is missing or damaged; names the stage to run.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, stage, error) from error
    if not isinstance(document, dict):
        raise _unreadable(path, stage, "it holds no JSON object")
    return document


def read_table(path: Path, stage: str) -> pd.DataFrame:
    """Read a CSV table that a stage writes; see `read_json` for errors."""
    import pandas as pd  # half a second, which a stage that reads no table is spared

    try:
        # Names are text: a budget may be called `2024`, or `na`, which pandas would read as NaN.
        text = dict.fromkeys(("budget", "method", "origin", "family", "error"), str)
        return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise _unreadable(path, stage, error) from error


def _unreadable(path: Path, stage: str, cause: object) -> ArtifactError:
    if isinstance(cause, FileNotFoundError):
        return ArtifactError(f"{path} is missing; run `dvc repro {stage}`.")
    return ArtifactError(
        f"cannot read {path} ({' '.join(str(cause).split())}); run `dvc repro {stage}`."
    )
