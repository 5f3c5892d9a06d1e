"""Recorded training steps do what steps do that run one kernel at a time."""

import copy

import pytest
import torch
from torch import nn

from seernet.compression import compress
from seernet.config import ModelConfig
from seernet.models import build, lay_out, trace
from seernet.policy import Policy
from seernet.training import (
    Classification,
    Distillation,
    Recipe,
    make_optimizer,
    replay_on,
    reproducible,
    seeded,
    train_steps,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SHAPE = (3, 16, 16)


@pytest.fixture
def baseline():
    reproducible(1)
    with seeded(0):
        model = build(ModelConfig(name="resnet20", arguments={"width": 8}), 10, SHAPE)
    return model.cuda().eval()


def batches(count, size=32):
    stream = torch.Generator().manual_seed(1)
    for _ in range(count):
        images = torch.randn(size, *SHAPE, generator=stream)
        yield images.cuda(), torch.randint(10, (size,), generator=stream).cuda()


def trained(model, teacher, recorded, parts=((12, 32),), precision="bfloat16"):
    network = copy.deepcopy(model)
    recipe = Recipe(0.05, 1e-3, 0.9, 1e-4, steps=24, warmup=4, precision=precision)
    lay_out(network, SHAPE)
    optimizer = make_optimizer(network, recipe)
    replay = replay_on(network) if recorded else None
    soft = Distillation(teacher, 0.3, 2.0)
    losses, first = [], 0
    for number, size in parts:
        with seeded(first):
            data = batches(number, size)
            task = Classification()
            loss = train_steps(network, data, task, optimizer, recipe, first, soft, replay)
        losses.append(loss)
        first += number
    if recorded:
        assert replay._graph is not None
    return losses, network.state_dict()


def same(one, other):
    assert one[0] == other[0]
    assert all(torch.equal(one[1][key], other[1][key]) for key in one[1])


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_plain_network_to_the_bit(baseline, precision):
    runs = [trained(baseline, baseline, recorded, precision=precision) for recorded in (0, 1)]
    same(*runs)


def test_compressed_network_over_epochs_and_odd_batches(baseline):
    graph = trace(copy.deepcopy(baseline).cpu(), SHAPE, 10)
    bits = {layer.name: 2 + place % 7 for place, layer in enumerate(graph.layers)}
    ratios = {group.name: 0.5 for group in graph.groups[:2]}
    images = next(batches(1, 64))[0]
    network = compress(baseline, Policy(ratios, bits, bits), graph, images)
    parts = ((6, 32), (2, 16), (6, 32))
    same(*(trained(network, baseline, recorded, parts) for recorded in (0, 1)))


class Waits(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 10)

    def forward(self, x):
        out = self.linear(x.flatten(1))
        return out if float(out.sum()) < 1e9 else out * 2


def test_network_that_cannot_be_recorded_runs_as_usual(caplog):
    model = Waits().cuda()
    recipe = Recipe(0.05, 1e-3, 0.9, 1e-4, steps=8)
    states = []
    for recorded in (False, True):
        network = copy.deepcopy(model)
        optimizer = make_optimizer(network, recipe)
        replay = replay_on(network) if recorded else None
        train_steps(network, batches(8), Classification(), optimizer, recipe, replay=replay)
        states.append(network.linear.weight.detach().clone())
    assert torch.equal(*states)
    assert "cannot be recorded" in caplog.text
