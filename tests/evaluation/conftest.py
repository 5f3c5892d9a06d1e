"""A ResNet-20 of width 4, trained for a moment on the embedded digits, and policies for it."""

import functools
from types import SimpleNamespace

import pytest
import torch

from seernet import store
from seernet.config import Params
from seernet.data import Dataset, prepare
from seernet.evaluation import (
    EvaluationSpec,
    Folders,
    Pretrainer,
    finetuning,
    pretraining,
    records,
    save_baseline,
)
from seernet.models import build, trace
from seernet.policy import CostModel, SearchSpace
from seernet.training import seeded

PARAMS = {
    "seed": 0,
    "device": "cpu",
    "data": {"name": "digits", "search_fraction": 0.2, "test_fraction": 0.3, "crop_padding": 1},
    "model": {"name": "resnet20", "arguments": {"width": 4}},
    "pretrain": {"epochs": 3, "batch_size": 64, "learning_rate": 0.1, "threads": 1},
    "space": {},
    "sample": {
        "cost_range": [0.003, 0.03],
        "evaluations": 16,
        "initial": 8,
        "batch": 4,
        "evaluation": {"steps": 3, "batch_size": 32, "calibration_images": 64},
    },
    "predictor": {"folds": 2},
    "optimize": {},
    "budgets": {"small": {"bops_ratio": 0.01}},
    "finetune": {
        "epochs": 2,
        "batch_size": 256,
        "learning_rate": 0.02,
        "distillation": 0.5,
        "calibration_images": 64,
        "threads": 1,
    },
    "report": {},
}


@pytest.fixture(scope="session", autouse=True)
def _code_read_once():
    """Our code does not change while tests run; the test of one that does reads it again."""
    with pytest.MonkeyPatch.context() as patch:
        cached = functools.cache(store.code_digest)
        for module in (finetuning, pretraining, records):
            patch.setattr(module, "code_digest", cached)
        yield


@pytest.fixture(scope="session")
def params():
    return Params.model_validate(PARAMS)


@pytest.fixture(scope="session")
def project(tmp_path_factory, params):
    """Folders `prepared` and `baseline`, and what later stages build from them."""
    root = tmp_path_factory.mktemp("project")
    folders = Folders(root / "prepared", root / "baseline", root / "progress")
    info = prepare(params.data, 0, folders.prepared, 64, progress=False)
    dataset = Dataset.open(folders.prepared, torch.device("cpu"), workers=0)
    with seeded(0):
        model = build(params.model, len(info.classes), info.input_shape)
    graph = trace(model, info.input_shape)
    trainer = Pretrainer(params, folders)
    score = trainer.run(model, dataset)
    trainer.finish()
    save_baseline(folders.baseline, model, graph)
    space = SearchSpace(graph, params.space)
    return SimpleNamespace(
        folders=folders, graph=graph, space=space, cost=CostModel(space), score=score
    )


@pytest.fixture(scope="session")
def spec(project, params):
    return EvaluationSpec(
        prepared=project.folders.prepared,
        baseline=project.folders.baseline,
        data=params.data,
        model=params.model,
        config=params.sample.evaluation,
        seed=params.seed,
        device="cpu",
    )


@pytest.fixture(scope="session")
def policies(project):
    """Four different policies, from the dearest to a cheap one."""
    levels = torch.tensor([1.0, 0.8, 0.6, 0.4], dtype=torch.float64)
    return project.space.decode(levels[:, None].expand(4, project.space.dimension))
