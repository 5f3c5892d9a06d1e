"""Parameters of the pipeline: the schema of `params.yaml` and its reader."""

from seernet.config.inputs import DataConfig, ModelConfig
from seernet.config.loading import load, validate
from seernet.config.outcome import BudgetConfig, ExportConfig, LatencyConfig, ReportConfig
from seernet.config.rules import FEWEST_POLICIES
from seernet.config.schema import Params
from seernet.config.search import OptimizeConfig, PredictorConfig, SampleConfig, SpaceConfig
from seernet.config.training import EvaluationConfig, FinetuneConfig, TrainConfig

__all__ = [
    "FEWEST_POLICIES",
    "BudgetConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExportConfig",
    "FinetuneConfig",
    "LatencyConfig",
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
