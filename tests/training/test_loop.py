"""Steps, schedule and parameter groups do what the recipe says."""

import math

import pytest
import torch
from torch import nn

from seernet.errors import TrainingError
from seernet.training import Classification, Recipe, make_optimizer, score, seeded, train_steps


def recipe(**changes):
    values = {"learning_rate": 0.1, "step_learning_rate": 0.01, "momentum": 0.9}
    return Recipe(**(values | {"weight_decay": 0.5, "steps": 10} | changes))


def test_factor_warms_up_linearly_then_falls_as_a_cosine():
    plan = recipe(steps=12, warmup=4)
    found = [plan.factor(step) for step in (0, 1, 3, 4, 8, 12, 40)]
    assert found == pytest.approx([0.25, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0])
    assert recipe(steps=4).factor(1) == pytest.approx(0.5 * (1 + math.sqrt(0.5)))


class WithStep(nn.Module):
    """A layer with one of each kind of parameter."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.quantizer = nn.Module()
        self.quantizer.learns_step = True
        self.quantizer.step = nn.Parameter(torch.ones(2))
        self.step = nn.Parameter(torch.tensor(-0.5))  # of the network, and no quantizer's

    def forward(self, x):
        return self.norm(self.linear(x)) * self.quantizer.step * self.step


def test_only_weights_decay_and_steps_have_their_own_rate():
    model = WithStep()
    seen = {
        id(parameter): (group["weight_decay"], group["peak"])
        for group in make_optimizer(model, recipe()).param_groups
        for parameter in group["params"]
    }
    named = {name: seen[id(parameter)] for name, parameter in model.named_parameters()}
    assert named == {
        "linear.weight": (0.5, 0.1),
        "linear.bias": (0.0, 0.1),
        "norm.weight": (0.0, 0.1),
        "norm.bias": (0.0, 0.1),
        "quantizer.step": (0.0, 0.01),
        "step": (0.0, 0.1),
    }


class Dropping(nn.Module):
    """A block is left out of the first step, as layer drop does."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(2, 2)
        self.steps = 0

    def forward(self, x):
        self.steps += 1
        return self.second(self.first(x)) if self.steps > 1 else self.first(x)


def test_a_part_whose_first_gradient_comes_late_is_trained():
    model = Dropping()
    before = model.second.weight.detach().clone()
    plan = recipe(steps=3)
    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))] * 3
    train_steps(model, batches, Classification(), make_optimizer(model, plan), plan)
    assert not torch.equal(model.second.weight, before)


def test_optimizer_without_momentum_is_plain_sgd():
    model = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(model.weight)
    plan = recipe(momentum=0.0, weight_decay=0.0, steps=1)
    batch = (torch.ones(1, 1), torch.tensor([0]))
    train_steps(model, [batch], Classification(), make_optimizer(model, plan), plan)
    # Softmax of equal logits is 1/2: the gradient is (-1/2, 1/2), the rate 0.1.
    torch.testing.assert_close(model.weight.flatten(), torch.tensor([0.05, -0.05]))


def test_train_steps_return_the_mean_loss_and_start_where_told():
    model = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(model.weight)
    plan = recipe(momentum=0.0, weight_decay=0.0, steps=2)
    batches = [(torch.ones(1, 1), torch.tensor([0]))]
    optimizer = make_optimizer(model, plan)
    loss = train_steps(model, batches, Classification(), optimizer, plan, first_step=2)
    assert loss == pytest.approx(math.log(2))
    assert not model.weight.any()  # the schedule has ended: the rate is zero


def test_step_sizes_stay_positive():
    model = WithStep()
    plan = recipe(step_learning_rate=1e6, steps=2)
    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))]
    train_steps(model, batches, Classification(), make_optimizer(model, plan), plan)
    assert bool((model.quantizer.step > 0).all())


def test_nan_loss_is_an_error_with_a_remedy():
    model = nn.Linear(1, 2)
    batches = [(torch.full((1, 1), torch.nan), torch.tensor([0]))]
    plan = recipe()
    with pytest.raises(
        TrainingError, match=r"loss is nan by step 1; lower `learning_rate` of what was"
    ):
        train_steps(model, batches, Classification(), make_optimizer(model, plan), plan)


def test_nan_is_noticed_before_a_long_epoch_ends():
    used = []

    def batches():
        for number in range(1000):
            used.append(number)
            yield torch.full((1, 1), torch.nan), torch.tensor([0])

    model, plan = nn.Linear(1, 2), recipe()
    with pytest.raises(TrainingError):
        train_steps(model, batches(), Classification(), make_optimizer(model, plan), plan)
    assert len(used) < 100


@pytest.mark.parametrize("training", [True, False])
def test_score_restores_the_mode_even_after_an_error(training):
    model = nn.Sequential(nn.Linear(1, 2), nn.Dropout(0.5)).train(training)
    batch = (torch.ones(1, 1), torch.tensor([0]))
    score(model, [batch], Classification())
    assert [module.training for module in model.modules()] == [training] * 3
    with pytest.raises(RuntimeError):
        score(model, [(torch.ones(1, 5), torch.tensor([0]))], Classification())
    assert model.training is training


def test_seeded_repeats_and_restores_the_generator():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with seeded(1):
        first = torch.rand(3)
    assert torch.equal(torch.rand(2), expected)
    with seeded(1):
        assert torch.equal(torch.rand(3), first)
    with seeded(2):
        assert not torch.equal(torch.rand(3), first)


def test_bfloat16_trains_and_keeps_float32_weights():
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()
    plan = recipe(precision="bfloat16")
    batches = [(torch.randn(6, 4), torch.arange(6) % 3)]
    train_steps(model, batches, Classification(), make_optimizer(model, plan), plan)
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)
