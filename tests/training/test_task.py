"""Losses and metrics of classification equal values worked out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from seernet.errors import ConfigError, TrainingError
from seernet.training import Classification, Distillation, make_task

IMAGES = torch.zeros(1, 1)


def constant(*logits):
    """A network whose output is the same for every image."""

    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([logits], dtype=torch.float32).expand(len(x), -1)

    return Constant()


def test_loss_is_the_cross_entropy():
    # softmax(ln 3, 0) = (3/4, 1/4)
    model = constant(math.log(3), 0.0)
    loss = Classification().loss(model, IMAGES, torch.tensor([1]), None)
    assert float(loss) == pytest.approx(math.log(4))


def test_label_smoothing_spreads_the_target():
    # Smoothing 0.2 over 2 classes makes the target (0.9, 0.1).
    task = Classification(label_smoothing=0.2)
    loss = task.loss(constant(math.log(3), 0.0), IMAGES, torch.tensor([0]), None)
    assert float(loss) == pytest.approx(-0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4))


def test_distillation_mixes_hard_and_soft_loss():
    # At temperature 2: teacher softmax(ln 3, 0) = (3/4, 1/4), student (1/2, 1/2), so
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2); the hard loss is ln 2.
    soft = Distillation(constant(2 * math.log(3), 0.0), weight=0.25, temperature=2.0)
    loss = Classification().loss(constant(0.0, 0.0), IMAGES, torch.tensor([0]), soft)
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(loss) == pytest.approx(0.75 * math.log(2) + 0.25 * 4 * divergence, rel=1e-5)


def test_distillation_does_not_train_the_teacher():
    teacher, student = nn.Linear(1, 2), nn.Linear(1, 2)
    soft = Distillation(teacher, 1.0, 4.0)
    task = Classification()
    task.loss(student, torch.ones(1, 1), torch.tensor([0]), soft).backward()
    assert teacher.weight.grad is None
    assert student.weight.grad is not None


def test_distillation_of_weight_zero_never_asks_the_teacher():
    class Forbidden(nn.Module):
        def forward(self, x):
            raise AssertionError("the teacher was asked")

    soft = Distillation(Forbidden(), 0.0, 4.0)
    loss = Classification().loss(constant(0.0, 0.0), IMAGES, torch.tensor([0]), soft)
    assert float(loss) == pytest.approx(math.log(2))


class Echo(nn.Module):
    """Images are logits."""

    def forward(self, x):
        return x


def test_top1_and_top5_over_batches_of_unequal_size():
    falling = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])  # ranks the classes 0 .. 5
    batches = [
        (falling.expand(3, 6), torch.tensor([0, 1, 5])),
        (falling.expand(1, 6), torch.tensor([4])),
    ]
    found = Classification().score(Echo(), batches)
    given = falling.softmax(0)[[0, 1, 5, 4]].mean().item()
    assert found == {"score": 0.25, "soft_score": pytest.approx(given), "top5": 0.75}


def test_few_classes_have_no_top5():
    batches = [(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))]
    assert Classification().score(Echo(), batches) == {"score": 0.5, "soft_score": 0.5}


def test_empty_split_is_an_error():
    with pytest.raises(ConfigError, match="the split is empty"):
        Classification().score(Echo(), [])


def test_data_set_decides_on_the_task():
    task = make_task(SimpleNamespace(task="classification", classes=("a", "b", "c", "d")), 0.1)
    assert task == Classification(label_smoothing=0.1, guess=0.25)


def test_network_that_overflows_has_no_score():
    batches = [(torch.tensor([[torch.inf, 0.0]]), torch.tensor([0]))]
    with pytest.raises(TrainingError, match="not finite"):
        Classification().score(Echo(), batches)


def test_divergence_by_hand():
    # softmax(0, 0) = (1/2, 1/2), softmax(0, log 3) = (1/4, 3/4)
    task = Classification()
    reference = torch.tensor([[0.0, 0.0]]).expand(5, -1)
    found = torch.tensor([[0.0, math.log(3.0)]]).expand(5, -1)
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert task.divergence(found, reference) == pytest.approx(expected)
    assert task.divergence(found, found) == 0.0
