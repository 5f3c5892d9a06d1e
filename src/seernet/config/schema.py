"""Schema of `params.yaml`: one model a section, each field with its meaning and unit."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from seernet.config.fields import Section
from seernet.config.inputs import DataConfig, ModelConfig
from seernet.config.outcome import BudgetConfig, ExportConfig, LatencyConfig, ReportConfig
from seernet.config.rules import broken_rules
from seernet.config.search import OptimizeConfig, PredictorConfig, SampleConfig, SpaceConfig
from seernet.config.training import FinetuneConfig, TrainConfig


class Params(Section):
    """The whole of `params.yaml`."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(description="seed of the whole pipeline")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto` takes a GPU where there is one"
    )
    data: DataConfig
    model: ModelConfig
    pretrain: TrainConfig
    space: SpaceConfig
    sample: SampleConfig
    predictor: PredictorConfig
    optimize: OptimizeConfig
    budgets: dict[str, BudgetConfig] = Field(
        min_length=1, description="name: limits, e.g. small: {bops_ratio: 0.01}"
    )
    finetune: FinetuneConfig
    latency: LatencyConfig = Field(
        default_factory=LatencyConfig, description="the target, where budgets limit latency"
    )
    export: ExportConfig = Field(default_factory=ExportConfig, description="deployable files")
    report: ReportConfig

    @field_validator("budgets")
    @classmethod
    def _named(cls, budgets: dict[str, BudgetConfig]) -> dict[str, BudgetConfig]:
        for key in budgets:
            if not re.fullmatch(r"[a-z0-9_]{1,64}", key):
                raise ValueError(f"a name is 1 to 64 of a-z, 0-9 and _, not {key!r:.80}")
        return budgets

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        if broken := list(broken_rules(self)):
            raise ValueError("; ".join(broken))
        return self
