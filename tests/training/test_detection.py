"""Detection's score is COCO's, its loss the detector's own, and a small detector learns."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from seernet.config import DataConfig, ModelConfig
from seernet.data import Augment, Dataset, prepare
from seernet.errors import ConfigError, TrainingError
from seernet.models import build
from seernet.training import Distillation, Recipe, make_optimizer, make_task, seeded, train_steps

TASK, COCO = (
    make_task(SimpleNamespace(task="detection", name=name, classes=("cat", "dog")))
    for name in ("voc", "coco")
)


def boxes(*rows, labels, **more):
    corners = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": corners, "labels": torch.tensor(labels, dtype=torch.int64), **more}


def truth(*rows, labels, crowd=None):
    flags = torch.tensor(crowd or [False] * len(labels), dtype=torch.bool)
    return boxes(*rows, labels=labels, crowd=flags)


class Fixed(torch.nn.Module):
    """Finds what it is told to find."""

    def __init__(self, *found, weight=1.0):
        super().__init__()
        self.found = found
        self.register_buffer("weight", torch.tensor(weight))

    def detect(self, images):
        return list(self.found)


def scored(found, target, task=TASK):
    return task.score(Fixed(found), [(torch.zeros(1, 3, 8, 8), [target])])


def test_perfect_detections_score_one():
    target = truth([0, 0, 40, 40], [50, 50, 90, 80], labels=[0, 1])
    found = boxes(*target["boxes"].tolist(), labels=[0, 1], scores=torch.tensor([0.9, 0.8]))
    assert scored(found, target) == pytest.approx(
        {"score": 1.0, "map_50": 1.0, "map/cat": 1.0, "map/dog": 1.0}
    )


def test_overlap_decides_at_how_many_thresholds_a_box_counts():
    """Intersection over union 0.72: right at 0.5, 0.55, 0.6, 0.65, 0.7, wrong at five others."""
    target = truth([0, 0, 100, 100], labels=[0])
    found = boxes([0, 0, 100, 72], labels=[0], scores=torch.tensor([0.9]))
    result = scored(found, target)
    assert result["score"] == pytest.approx(0.5)
    assert result["map_50"] == pytest.approx(1.0)


@pytest.mark.parametrize("task", [TASK, COCO], ids=["difficult", "crowd"])
def test_what_does_not_count_neither_helps_nor_hurts(task):
    target = truth([0, 0, 40, 40], [50, 50, 90, 90], labels=[0, 0], crowd=[False, True])
    both = boxes(*target["boxes"].tolist(), labels=[0, 0], scores=torch.tensor([0.9, 0.8]))
    one = boxes([0, 0, 40, 40], labels=[0], scores=torch.tensor([0.9]))
    assert scored(both, target, task)["score"] == pytest.approx(1.0)
    assert scored(one, target, task)["score"] == pytest.approx(1.0)


def test_a_crowd_takes_all_that_lies_inside_a_difficult_object_only_what_overlaps_it():
    target = truth([0, 0, 40, 40], [50, 50, 90, 90], labels=[0, 0], crowd=[False, True])
    inside = boxes([50, 50, 60, 60], [0, 0, 40, 40], labels=[0, 0], scores=torch.tensor([0.9, 0.8]))
    assert scored(inside, target, COCO)["score"] == pytest.approx(1.0)
    assert scored(inside, target)["score"] == pytest.approx(0.5)  # a false positive comes first
    twice = boxes([50, 50, 90, 90], [50, 50, 90, 90], [0, 0, 40, 40], labels=[0] * 3)
    twice["scores"] = torch.tensor([0.95, 0.9, 0.8])
    assert scored(twice, target, COCO)["score"] == pytest.approx(1.0)
    assert scored(twice, target)["score"] == pytest.approx(0.5)  # one difficult object takes one


def test_each_class_has_the_score_that_torchmetrics_gives_it():
    from torchmetrics.detection import MeanAveragePrecision

    generator = torch.Generator().manual_seed(0)
    corners = 60 * torch.rand(12, 2, generator=generator)
    corners = torch.cat([corners, corners + 5 + 30 * torch.rand(12, 2, generator=generator)], dim=1)
    labels = torch.arange(12) % 2
    target = {"boxes": corners, "labels": labels, "crowd": torch.zeros(12, dtype=torch.bool)}
    moved = corners + 3 * torch.rand(12, 4, generator=generator)
    scores = torch.rand(12, generator=generator)
    found = {"boxes": moved, "labels": labels, "scores": scores}
    result = scored(found, target)
    metric = MeanAveragePrecision(class_metrics=True)
    metric.update([found], [{"boxes": corners, "labels": labels}])
    expected = metric.compute()
    for name, value in zip(("map/cat", "map/dog"), expected["map_per_class"].tolist(), strict=True):
        assert 0.1 < value < 0.9
        assert result[name] == pytest.approx(value, abs=1e-6)


def test_nothing_found_scores_zero():
    target = truth([0, 0, 40, 40], labels=[1])
    result = scored(boxes(labels=[], scores=torch.zeros(0)), target)
    assert result["score"] == result["map_50"] == result["map/dog"] == 0.0


def test_class_that_cannot_be_found_has_no_score_of_its_own():
    target = truth([0, 0, 40, 40], labels=[0])
    both = boxes([0, 0, 40, 40], [1, 1, 9, 9], labels=[0, 1], scores=torch.tensor([0.9, 0.8]))
    assert set(scored(both, target)) == {"score", "map_50", "map/cat"}
    with pytest.raises(ConfigError, match="the split has no box"):
        scored(both, truth(labels=[]))


def test_empty_split_and_infinite_weights_are_told():
    with pytest.raises(ConfigError, match="the split is empty"):
        TASK.score(Fixed(), [])
    with pytest.raises(TrainingError, match="weights are not finite"):
        TASK.score(Fixed(weight=float("nan")), [(torch.zeros(1, 3, 8, 8), [])])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A small detector, a few batches, and its task."""
    folder = tmp_path_factory.mktemp("scenes") / "prepared"
    config = DataConfig(name="digit-scenes", image_size=48, search_fraction=0.1)
    info = prepare(config, 0, folder, 16, progress=False)
    dataset = Dataset.open(folder, torch.device("cpu"), 0)
    with seeded(0):
        model = build(
            ModelConfig(name="small_ssd", arguments={"width": 8}),
            len(info.classes),
            info.input_shape,
            info.task,
        )
    loader = dataset.loader("train", 32, augment=Augment(0, False), seed=0)
    return model, list(loader.epoch(0))[:12], make_task(info)


def train(model, batches, task, soft=None, rate=0.02):
    recipe = Recipe(rate, 1e-3, 0.9, 1e-4, 3 * len(batches), warmup=6)
    optimizer = make_optimizer(model, recipe)
    with seeded(0):
        return [
            train_steps(model, batches, task, optimizer, recipe, round * len(batches), soft)
            for round in range(3)
        ]


def test_small_detector_learns(scenes):
    model, batches, task = scenes
    losses = train(copy.deepcopy(model), batches, task)
    assert losses[2] < 0.75 * losses[0]


def test_teacher_pulls_raw_predictions_towards_its_own(scenes):
    model, batches, task = scenes
    teacher = copy.deepcopy(model)
    train(teacher, batches, task)
    teacher.eval()
    images = batches[0][0]
    distances = {}
    for weight in (0.0, 1.0):
        student = copy.deepcopy(teacher)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        train(student, batches, task, Distillation(teacher, weight, 4.0), rate=0.005)
        distances[weight] = task.divergence(outputs(student, images), outputs(teacher, images))
    assert distances[1.0] < 0.5 * distances[0.0]


def test_divergence_is_zero_from_itself_and_positive_from_others(scenes):
    model, batches, task = scenes
    other = copy.deepcopy(model)
    images = batches[0][0]
    expected = outputs(model, images)
    assert task.divergence(outputs(other, images), expected) == 0.0
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    assert task.divergence(outputs(other, images), expected) > 0.0


def outputs(model, images):
    with torch.no_grad():
        return model.eval()(images)
