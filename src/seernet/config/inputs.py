"""Sections of `params.yaml` on what is compressed: the data set and the network."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from seernet.config.fields import Channels, Fraction, Name, Rate, Section, Share, Side


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
        description="folder of the data set, below data/raw where DVC sees its changes; cifar and "
        "voc20* are fetched into it (default data/downloads)",
    )
    image_size: Side | None = Field(
        None,
        description="side in pixels that images are brought to, at most 4096; null keeps the "
        "native size",
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
    bad_boxes: Literal["refuse", "drop", "clip"] = Field(
        "refuse",
        description="what happens to boxes that are outside, empty or of another class, and to "
        "annotations and images that do not fit together: an error; `drop` leaves them out, with a "
        "warning; `clip` too, but cuts boxes that reach over the edge",
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
        None,
        description="state dict (.safetensors, or .pt/.pth with tensors only), below networks "
        "where DVC sees its changes",
    )
