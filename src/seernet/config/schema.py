"""Schema of `params.yaml`: one model per section, each field with its meaning and unit."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from seernet.config.fields import (
    Bits,
    Channels,
    Fraction,
    Name,
    NonNegative,
    Portion,
    Positive,
    Precision,
    Rate,
    Section,
    Share,
)
from seernet.config.rules import broken_rules


class DataConfig(Section):
    """Which images, and how they are split, held and augmented."""

    name: Literal[
        "digits",
        "cifar10",
        "cifar100",
        "imagefolder",
        "digit-scenes",
        "voc",
        "voc2007",
        "voc2012",
        "coco",
    ] = Field(
        description="data set; `imagefolder` is any tree train/<class>/*; with boxes: `voc` and "
        "`coco` are folders in these layouts, `digit-scenes` is rendered"
    )
    path: Name | None = Field(
        None,
        description="folder of the data set; cifar and voc20* are fetched into it (default "
        "data/downloads)",
    )
    image_size: Positive | None = Field(
        None, description="side in pixels that images are brought to; null keeps the native size"
    )
    channels: Channels | None = Field(
        None, description="1 = gray, 3 = RGB; null means what the data set has (imagefolder: 3)"
    )
    mean: Annotated[list[Share], Field(min_length=1)] | None = Field(
        None,
        description="of each channel, pixels in [0, 1], that a checkpoint was trained with; null "
        "measures the train split",
    )
    std: Annotated[list[Rate], Field(min_length=1)] | None = Field(
        None, description="the same for the standard deviation"
    )
    classes: Annotated[list[Name], Field(min_length=1)] | None = Field(
        None, description="classes of boxes, in order; null takes those of the annotations"
    )
    bad_boxes: Literal["refuse", "drop"] = Field(
        "refuse",
        description="what happens to boxes that are outside, empty or of another class: an error, "
        "or they are left out, with a warning",
    )
    search_fraction: Fraction = Field(
        0.1, description="share of the training images held out to score policies"
    )
    test_fraction: Fraction = Field(
        0.2, description="share held out for the test, where the data set has no test split"
    )
    crop_padding: Annotated[int, Field(ge=0)] = Field(
        0, description="pixels of padding before a random crop, in training from memory"
    )
    flip: bool = Field(False, description="mirror half of the training images left to right")
    storage: Literal["auto", "memory", "files"] = Field(
        "auto",
        description="`memory`: decoded once, kept as uint8; `files`: read again in each epoch",
    )
    workers: Annotated[int, Field(ge=0)] = Field(
        2, description="processes that decode images, when they are read from files"
    )

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str] | None) -> list[str] | None:
        if classes is not None and len(set(classes)) != len(classes):
            raise ValueError("classes must be distinct")
        return classes


class ModelConfig(Section):
    """The network to compress."""

    name: Name = Field(
        description="resnet20, vgg_small, torchvision:<name>, file.py:function or module:function"
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="keyword arguments of the function that builds it"
    )
    weights: Name | None = Field(None, description="torchvision weights by name, e.g. DEFAULT")
    checkpoint: Name | None = Field(
        None, description="state dict (.safetensors, or .pt/.pth with tensors only)"
    )


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
    calibration_images: Positive = Field(
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


class SpaceConfig(Section):
    """The search space of policies."""

    max_pruning_ratio: Portion = Field(
        0.75, description="largest fraction of channels removed from a group"
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
    calibration_images: Positive = Field(
        512, description="images that set step sizes and batch-norm statistics"
    )
    precision: Precision = Field("float32", description="see finetune.precision")
    threads: Positive = Field(1, description="CPU threads of each evaluation")


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


class BudgetConfig(Section):
    """Upper limits that one compressed network must meet, all at once."""

    bops_ratio: Rate | None = Field(None, description="BOPs relative to the baseline at 32 bits")
    bops: Rate | None = Field(None, description="BOPs")
    macs_ratio: Rate | None = Field(None, description="MACs relative to the baseline")
    macs: Rate | None = Field(None, description="MACs")
    size_ratio: Rate | None = Field(None, description="bytes relative to the baseline at 32 bits")
    size_bytes: Rate | None = Field(None, description="bytes of packed weights, scales, biases")

    @model_validator(mode="after")
    def _limited(self) -> BudgetConfig:
        if not self.model_dump(exclude_none=True):
            raise ValueError("a budget needs at least one limit, e.g. {bops_ratio: 0.01}")
        return self


class ExportConfig(Section):
    """Deployable files, and when they count as faithful."""

    onnx: bool = Field(True, description="write `model.onnx`, and hold it against the network")
    agreement: Share = Field(
        0.995, description="least share of test images that both put into the same class"
    )
    score_tolerance: Share = Field(
        0.002, description="how far its test score may be from the network's"
    )


class ReportConfig(Section):
    """Figures and page."""

    front_points: Annotated[int, Field(ge=2)] = Field(
        100, description="budgets on the predicted front"
    )
    dpi: Positive = Field(160, description="resolution of the PNG figures")


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
