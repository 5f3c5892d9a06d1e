"""Where the stages' files lie, and JSON files that are complete or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from seernet.errors import ArtifactError

PREPARED = Path("data/prepared")
BASELINE = Path("models/baseline")
GRAPH = BASELINE / "graph.json"
EVALUATIONS = Path("data/evaluations/evaluations.csv")
PREDICTOR = Path("models/predictor")
POLICIES = Path("models/policies")
FINETUNED = Path("models/finetuned")
METRICS = Path("results/metrics")
TRAINING = Path("results/training")
FRONT = Path("results/front.csv")


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
        raise ArtifactError(f"cannot read {path} ({error}); run `dvc repro {stage}`.") from error
    if not isinstance(document, dict):
        raise ArtifactError(f"{path} holds no JSON object; run `dvc repro {stage}`.")
    return document
