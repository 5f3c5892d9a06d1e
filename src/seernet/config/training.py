"""Sections of `params.yaml` on training: the baseline's, finetuning, the short evaluation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from seernet.config.fields import NonNegative, Portion, Positive, Precision, Rate, Section, Share


class TrainConfig(Section):
    """A training schedule: SGD with momentum, cosine learning rate after a warm-up."""

    epochs: Annotated[int, Field(ge=0)] = Field(description="passes over the train split")
    batch_size: Positive = Field(128, description="images a step")
    learning_rate: Rate = Field(0.1, description="peak learning rate")
    momentum: Portion = Field(0.9, description="of SGD, Nesterov")
    weight_decay: NonNegative = Field(5e-4, description="of weights; not of biases, norms, steps")
    warmup_epochs: NonNegative = Field(1.0, description="epochs of linear warm-up")
    label_smoothing: Portion = Field(0.0, description="in [0, 1)")
    precision: Precision = Field(
        "float32",
        description="arithmetic of the forward pass; `auto`: bfloat16 where the machine computes "
        "in it, else float32",
    )
    threads: Positive = Field(
        2,
        description="CPU threads; part of the result's identity. More than the machine has free "
        "make training many times slower, since they wait for each other by spinning",
    )


class FinetuneConfig(TrainConfig):
    """Quantization-aware training of a compressed network."""

    step_learning_rate: Rate = Field(
        1e-3, description="peak learning rate of quantization step sizes"
    )
    distillation: Share = Field(
        0.0, description="weight of the baseline's soft targets in the loss; 0 switches it off"
    )
    temperature: Rate = Field(4.0, description="softmax temperature of the soft targets")
    calibration_images: Annotated[int, Field(ge=2)] = Field(
        512, description="images that set step sizes and batch-norm statistics"
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=lambda: [0], min_length=1, description="one finetuning run for each"
    )

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("seeds must be distinct")
        return seeds


class EvaluationConfig(Section):
    """The short evaluation that measures one policy."""

    steps: Annotated[int, Field(ge=0)] = Field(100, description="optimizer steps of finetuning")
    batch_size: Positive = Field(64, description="images a step")
    learning_rate: Rate = Field(0.02, description="peak learning rate, cosine to zero")
    step_learning_rate: Rate = Field(1e-3, description="see finetune.step_learning_rate")
    momentum: Portion = Field(0.9, description="of SGD, Nesterov")
    weight_decay: NonNegative = Field(1e-4, description="of weights")
    distillation: Share = Field(
        0.0, description="weight of the baseline's soft targets in the loss"
    )
    temperature: Rate = Field(4.0, description="softmax temperature of the soft targets")
    calibration_images: Annotated[int, Field(ge=2)] = Field(
        512, description="images that set step sizes and batch-norm statistics"
    )
    precision: Precision = Field("float32", description="see finetune.precision")
    threads: Positive = Field(1, description="CPU threads of each evaluation")
