"""What is asked of a measurement, and what comes back: small values that pass between processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seernet import artifacts
from seernet.config import DataConfig, EvaluationConfig, ModelConfig, Params
from seernet.evaluation.baseline import inputs
from seernet.store import code_digest, digest, files_digest

CODE = (
    "compression",
    "data",
    "evaluation/baseline",
    "evaluation/evaluator",
    "graph",
    "models",
    "policy/policy",
    "training",
)
"""Parts of `seernet` that decide what is measured."""


@dataclass(frozen=True)
class EvaluationSpec:
    """All that decides a measurement beside its policy; small, and passed to worker processes.

    Attributes:
        prepared: Folder of the prepared data.
        baseline: Folder of the baseline network and its graph.
        data: The `data` section.
        model: The `model` section.
        config: The `sample.evaluation` section.
        seed: Seed of the pipeline.
        device: Device of the evaluations.
    """

    prepared: Path
    baseline: Path
    data: DataConfig
    model: ModelConfig
    config: EvaluationConfig
    seed: int
    device: str

    @classmethod
    def of(cls, params: Params) -> EvaluationSpec:
        """What decides a measurement in the pipeline's own folders."""
        return cls(
            prepared=artifacts.PREPARED,
            baseline=artifacts.BASELINE,
            data=params.data,
            model=params.model,
            config=params.sample.evaluation,
            seed=params.seed,
            device=params.device,
        )

    def digest(self) -> str:
        """Hash of everything that decides a score beside the policy."""
        return digest(
            {
                **inputs(self.prepared, self.data, self.model, self.device),
                "baseline": files_digest(self.baseline),
                "config": self.config.model_dump(),
                "seed": self.seed,
                "code": code_digest(CODE),
            }
        )


@dataclass(frozen=True)
class Evaluation:
    """One measurement.

    Attributes:
        score: On the search split, in [0, 1]; None if it failed.
        train_macs: Compute that it took, in MACs.
        error: Why it failed, or empty.
        soft_score: See `Task.score`; None if it failed, or if the task has none.
        final: Whether measuring again would give the same; not so if memory ran out.
    """

    score: float | None
    train_macs: int
    error: str = ""
    final: bool = True
    soft_score: float | None = None

    @property
    def lesson(self) -> tuple[float | None, float | None]:
        """Score and soft score for a predictor to learn: 0 of a network that cannot be trained."""
        untrainable = self.score is None and self.final
        return (0.0, 0.0) if untrainable else (self.score, self.soft_score)


@dataclass(frozen=True)
class Divergence:
    """How far a network that was compressed but not trained is from the baseline.

    Attributes:
        value: See `Task.divergence`.
        macs: Compute that it took, in MACs.
    """

    value: float
    macs: int
