"""Every file of `presets/` is a whole parameters file whose budgets its network can meet."""

from pathlib import Path

import pytest
import torch

from seernet.config import load
from seernet.models import build, trace
from seernet.policy import CostModel, bounds, checked_space
from seernet.sampling import uniform_candidates

PRESETS = sorted((Path(__file__).parents[1] / "presets").glob("*.yaml"))


def shape_and_classes(name: str) -> tuple[tuple[int, int, int], int]:
    """What the data of a preset would say."""
    if name.startswith("cifar10"):
        return (3, 32, 32), 10
    return ((3, 224, 224), 1000) if name.startswith("imagenet") else ((3, 64, 64), 5)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_can_be_run(path: Path) -> None:
    params = load(path)
    shape, classes = shape_and_classes(path.stem)
    bare = params.model.model_copy(update={"weights": None})  # they would be fetched
    with torch.random.fork_rng():
        space = checked_space(trace(build(bare, classes, shape), shape, classes), params)
    cost = CostModel(space)
    low, high = params.sample.cost_range
    baseline = float(cost.baseline().bops)
    for name, budget in params.budgets.items():
        for limit in bounds(budget, cost):
            if limit.cost == "bops":
                assert low < limit.limit / baseline < high, f"{name} is not where sampling looks"
        assert len(uniform_candidates(space, bounds(budget, cost))), f"no rival for {name}"


@pytest.mark.parametrize("preset", ["cifar10-resnet20", "cifar10-vgg-small"])
def test_uniform_networks_just_fit_their_budgets(preset: str) -> None:
    """First and last layer at 8 bits, nothing pruned."""
    params = load(next(path for path in PRESETS if path.stem == preset))
    space = checked_space(trace(build(params.model, 10, (3, 32, 32)), (3, 32, 32)), params)
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
