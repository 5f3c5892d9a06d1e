"""Every file of `presets/` is a whole parameters file whose budgets its network can meet."""

import re
from pathlib import Path

import pytest
import torch

from seernet.config import Params, load
from seernet.data.digit_scenes import SIDE
from seernet.graph import NetworkGraph
from seernet.models import build, trace
from seernet.policy import CostModel, bounds, checked_space
from seernet.sampling import uniform_candidates

BOXES = ("digit-scenes", "voc", "voc2007", "voc2012", "coco")
PRESETS = sorted((Path(__file__).parents[1] / "presets").glob("*.yaml"))


CLASSES = {"cifar10": 10, "digit": 10, "imagenet": 1000, "voc": 20, "coco": 80}
UNIFORM = {  # budgets named after networks of that many bits
    "cifar10-resnet20": ["w4a4", "w3a3", "w2a2"],
    "cifar10-vgg-small": ["w4a4", "w3a3", "w2a2"],
    "imagenet-mobilenetv2": ["w4a4"],
    "imagenet-resnet18": ["w3a3", "w2a2"],
    "imagenet-resnet50": ["w3a3", "w2a2"],
}
SIDES = {"cifar10": 32, "digit-scenes": SIDE}  # of the others, `data.image_size`


def shape_and_classes(params: Params, name: str) -> tuple[tuple[int, int, int], int]:
    """What the data of a preset would say."""
    side = SIDES.get(params.data.name) or params.data.image_size
    assert side is not None
    return (3, side, side), CLASSES.get(name.partition("-")[0], 5)


def graph_of(params: Params, name: str) -> NetworkGraph:
    """Of the network of a preset, without weights, which would be fetched."""
    shape, classes = shape_and_classes(params, name)
    arguments = dict(params.model.arguments)
    if "weights_backbone" in arguments:
        arguments["weights_backbone"] = None
    bare = params.model.model_copy(update={"weights": None, "arguments": arguments})
    task = "detection" if params.data.name in BOXES else "classification"
    with torch.random.fork_rng():
        return trace(build(bare, classes, shape, task), shape, classes)


def uniform_bops(cost: CostModel, bits: int) -> float:
    """Nothing pruned, all layers at the same bits, but for the first and last, at 8."""
    levels = [
        1.0 if c.kind == "pruning_ratio" else c.values.index(bits) / (len(c.values) - 1)
        for c in cost.space.coordinates
    ]
    return float(cost(torch.tensor([levels], dtype=torch.float64)).bops)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_can_be_run_and_what_a_budget_is_named_after_just_fits(path: Path) -> None:
    params = load(path)
    space = checked_space(graph_of(params, path.stem), params)
    cost = CostModel(space)
    low, high = params.sample.cost_range
    baseline = float(cost.baseline().bops)
    for name, budget in params.budgets.items():
        for limit in bounds(budget, cost):
            if limit.cost == "bops":
                assert low < limit.limit / baseline < high, f"{name} is not where sampling looks"
        assert len(uniform_candidates(cost, bounds(budget, cost))), f"no rival for {name}"
    uniform = {b: found for b in params.budgets if (found := re.fullmatch(r"w(\d)a\1", b))}
    assert list(uniform) == UNIFORM.get(path.stem, [])
    for name, found in uniform.items():
        limit = params.budgets[name].bops
        assert limit is not None
        assert 0.99 * limit < uniform_bops(cost, int(found[1])) <= limit
