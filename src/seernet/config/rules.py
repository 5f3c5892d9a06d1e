"""Rules between keys of different fields of `params.yaml`, which no single field can check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seernet.config.schema import Params


FEWEST_POLICIES = 5  # that a predictor can learn from
_BOXES = ("digit-scenes", "voc", "voc2007", "voc2012", "coco")


def broken_rules(params: Params) -> Iterator[str]:
    """Say which rules between keys are broken.

    `sample.initial` may exceed `sample.evaluations`: the initial design never depends on the total,
    so that the first n policies of a longer run are those of a shorter one.

    Yields:
        For each broken rule one clause: the keys, their values, and the remedy.
    """
    data, model, space, sample = params.data, params.model, params.space, params.sample
    if data.name in ("imagefolder", "voc", "coco") and data.path is None:
        yield f"`data.path` is missing, and `data.name: {data.name}` needs it; name the folder"
    if data.name in _BOXES:
        yield from _unused_with_boxes(params)
    elif data.classes is not None:
        yield (
            f"`data.classes` is for data with boxes, and `data.name: {data.name}` has none; remove "
            "it (classes are in the order of their folders' names)"
        )
    if (data.mean is None) != (data.std is None):
        yield "`data.mean` and `data.std` belong together; give both, or neither"
    if model.weights is not None and model.checkpoint is not None:
        yield "`model.weights` and `model.checkpoint` exclude each other; remove one of them"
    if 0.0 < space.max_pruning_ratio < space.pruning_step:
        yield (
            f"`space.pruning_step` ({space.pruning_step}) exceeds `space.max_pruning_ratio` "
            f"({space.max_pruning_ratio}), so nothing could be pruned; lower the step, or set the "
            "ratio to 0"
        )
    if sample.batch > sample.population:
        yield (
            f"`sample.batch` ({sample.batch}) exceeds `sample.population` ({sample.population}), "
            "from which it is chosen; lower the batch or raise the population"
        )
    fewest = FEWEST_POLICIES
    if sample.evaluations < fewest or sample.initial < min(fewest, sample.evaluations):
        yield (
            f"`sample.evaluations` ({sample.evaluations}) and `sample.initial` ({sample.initial}) "
            f"must be at least {fewest}, or the predictor has nothing to learn from; raise them"
        )
    if params.predictor.folds > sample.evaluations:
        yield (
            f"`predictor.folds` ({params.predictor.folds}) exceeds `sample.evaluations` "
            f"({sample.evaluations}); lower the folds or measure more"
        )
    timed = [n for n, b in params.budgets.items() if b.latency_ms or b.latency_ratio]
    if timed and params.latency.table == "none":
        yield (
            f"budget `{timed[0]}` limits latency, and `latency.table` is `none`; set it to "
            "`measure`, or to the file of another machine"
        )


def _unused_with_boxes(params: Params) -> Iterator[str]:
    trainings = {"pretrain": params.pretrain, "finetune": params.finetune}
    values = {f"{name}.label_smoothing": t.label_smoothing for name, t in trainings.items()}
    for key, value in {"data.crop_padding": params.data.crop_padding, **values}.items():
        if value:
            yield (
                f"`{key}` ({value}) is for images with one label, and `data.name: "
                f"{params.data.name}` has boxes; remove it"
            )
