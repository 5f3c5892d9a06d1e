"""Sections of `params.yaml` on what comes out: budgets, their target, files, figures."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from seernet.config.fields import Name, Positive, Rate, Section, Share


class BudgetConfig(Section):
    """Upper limits that one compressed network must meet, all at once."""

    bops_ratio: Rate | None = Field(None, description="BOPs relative to the baseline at 32 bits")
    bops: Rate | None = Field(None, description="BOPs")
    macs_ratio: Rate | None = Field(None, description="MACs relative to the baseline")
    macs: Rate | None = Field(None, description="MACs")
    size_ratio: Rate | None = Field(None, description="bytes relative to the baseline at 32 bits")
    size_bytes: Rate | None = Field(None, description="bytes of packed weights, scales, biases")
    latency_ratio: Rate | None = Field(
        None, description="time of one image, relative to the baseline in float32 on the target"
    )
    latency_ms: Rate | None = Field(
        None, description="milliseconds for one image on the target of `latency.table`"
    )

    @model_validator(mode="after")
    def _limited(self) -> BudgetConfig:
        if not self.model_dump(exclude_none=True):
            raise ValueError("a budget needs at least one limit, e.g. {bops_ratio: 0.01}")
        return self


class LatencyConfig(Section):
    """The target, where budgets limit latency."""

    table: Name = Field(
        "none",
        description="`none`; `measure`: layers are timed on this machine; or a file that this "
        "stage wrote on another one, kept in data/latency",
    )
    threads: Positive = Field(1, description="CPU threads of ONNX Runtime")


class ExportConfig(Section):
    """Deployable files, and when they count as faithful."""

    onnx: bool = Field(True, description="write `model.onnx`, and hold it against the network")
    agreement: Share = Field(
        0.995,
        description="least share of test images (of confident boxes, for detectors) on which both "
        "decide alike",
    )
    score_tolerance: Share = Field(
        0.002, description="how far its test score may be from the network's"
    )
    threads: Positive = Field(2, description="CPU threads of these comparisons")


class ReportConfig(Section):
    """Figures and page."""

    front_points: Annotated[int, Field(ge=2)] = Field(
        100, description="budgets on the predicted front"
    )
    dpi: Positive = Field(160, description="resolution of the PNG figures")
