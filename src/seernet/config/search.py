"""Sections of `params.yaml` on the search: space, sampling, predictor, optimization."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from seernet.config.fields import (
    Bits,
    Fraction,
    Name,
    NonNegative,
    Portion,
    Positive,
    Rate,
    Section,
)
from seernet.config.training import EvaluationConfig


class SpaceConfig(Section):
    """The search space of policies."""

    max_pruning_ratio: Portion = Field(
        0.75,
        description="largest fraction of channels removed from a group, before it is rounded to "
        "whole channels and to `channel_multiple`",
    )
    pruning_step: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.125, description="distance between neighbouring pruning ratios"
    )
    channel_multiple: Positive = Field(
        1, description="kept channel counts are multiples of this, where the group allows it"
    )
    weight_bits: list[Bits] = Field(
        default_factory=lambda: [2, 3, 4, 5, 6, 7, 8], min_length=1, description="allowed widths"
    )
    act_bits: list[Bits] = Field(
        default_factory=lambda: [2, 3, 4, 5, 6, 7, 8], min_length=1, description="allowed widths"
    )
    edge_bits: Bits | None = Field(
        8, description="fixed width of the first and last layer; null searches them too"
    )

    @field_validator("weight_bits", "act_bits")
    @classmethod
    def _increasing(cls, bits: list[int]) -> list[int]:
        if sorted(set(bits)) != bits:
            raise ValueError("bit-widths must increase, without repetition")
        return bits


class SampleConfig(Section):
    """The active sampling loop."""

    evaluations: Positive = Field(64, description="policies measured for the predictor")
    initial: Positive = Field(24, description="of them, spread over cost before the first round")
    batch: Positive = Field(8, description="policies measured in each active round")
    acquisition: Literal["integrated", "frontier", "variance", "gap", "random"] = Field(
        "integrated", description="what makes a candidate worth measuring; see sampling/acquisition"
    )
    cost_range: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = Field(
        description="smallest and largest BOPs of interest, relative to the baseline at 32 bits"
    )
    population: Annotated[int, Field(ge=8)] = Field(
        128, description="policies of the evolutionary search for candidates"
    )
    generations: Positive = Field(30, description="generations of that search")
    workers: Positive = Field(2, description="processes that measure policies side by side")
    cluster: Name | None = Field(
        None,
        description="address of a Dask scheduler whose workers measure instead, e.g. "
        "tcp://host:8786; null: the environment's SEERNET_CLUSTER, if there is one",
    )
    evaluation: EvaluationConfig = Field(
        default_factory=EvaluationConfig, description="how one policy is measured"
    )

    @field_validator("cost_range")
    @classmethod
    def _increasing(cls, cost_range: list[float]) -> list[float]:
        if cost_range[0] >= cost_range[1]:
            raise ValueError("the smallest cost must come first, and below the largest")
        return cost_range


class PredictorConfig(Section):
    """The accuracy predictor."""

    family: Literal["auto", "gp", "ensemble"] = Field(
        "auto", description="`auto` compares them in cross-validation; see predictor.select"
    )
    folds: Annotated[int, Field(ge=2)] = Field(5, description="folds of the cross-validation")
    members: Annotated[int, Field(ge=2)] = Field(16, description="networks of the ensemble")
    hidden: Positive = Field(32, description="width of each network's hidden layers")
    iterations: Positive = Field(400, description="full-batch Adam steps of the ensemble")


class OptimizeConfig(Section):
    """Gradient ascent over the relaxed policy, inside the budget."""

    starts: Positive = Field(32, description="starting points climbed at once")
    iterations: Positive = Field(60, description="gradient steps")
    learning_rate: Rate = Field(0.1, description="of the adaptive steps, in relaxed units")
    kappa: NonNegative = Field(
        2.0, description="standard deviations subtracted from the predicted score"
    )
    barrier_weight: Rate = Field(
        0.2, description="first weight of the log barrier, relative to the spread of scores"
    )
