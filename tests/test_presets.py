"""Every file of `presets/` is a whole parameters file whose budgets its network can meet."""

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


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_can_be_run(path: Path) -> None:
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


@pytest.mark.parametrize("preset", ["cifar10-resnet20", "cifar10-vgg-small"])
def test_uniform_networks_just_fit_their_budgets(preset: str) -> None:
    """First and last layer at 8 bits, nothing pruned."""
    params = load(next(path for path in PRESETS if path.stem == preset))
    space = checked_space(graph_of(params, preset), params)
    cost = CostModel(space)
    for bits in (4, 3, 2):
        levels = [
            1.0 if c.kind == "pruning_ratio" else c.values.index(bits) / (len(c.values) - 1)
            for c in space.coordinates
        ]
        used = float(cost(torch.tensor([levels], dtype=torch.float64)).bops)
        limit = params.budgets[f"w{bits}a{bits}"].bops
        assert limit is not None
        assert 0.99 * limit < used <= limit
