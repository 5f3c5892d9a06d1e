"""Parameters of the pipeline: the schema of `params.yaml` and its reader."""

from seernet.config.loading import load, validate
from seernet.config.schema import (
    BudgetConfig,
    DataConfig,
    EvaluationConfig,
    ExportConfig,
    FinetuneConfig,
    ModelConfig,
    OptimizeConfig,
    Params,
    PredictorConfig,
    ReportConfig,
    SampleConfig,
    SpaceConfig,
    TrainConfig,
)

__all__ = [
    "BudgetConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExportConfig",
    "FinetuneConfig",
    "ModelConfig",
    "OptimizeConfig",
    "Params",
    "PredictorConfig",
    "ReportConfig",
    "SampleConfig",
    "SpaceConfig",
    "TrainConfig",
    "load",
    "validate",
]
