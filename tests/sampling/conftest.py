"""A small space, a true score that is known, and a sampler on it."""

import functools

import pytest
import torch

from seernet.config import OptimizeConfig, PredictorConfig, SampleConfig, SpaceConfig
from seernet.models import trace
from seernet.models.resnet20 import resnet20
from seernet.policy import CostModel, FeatureMap, SearchSpace
from seernet.sampling import ActiveSampler, active


@pytest.fixture(scope="session", autouse=True)
def _few_points_of_the_front():
    """A coarse front, climbed by few: the ascent behind it has tests of its own."""
    quick = functools.partial(OptimizeConfig, starts=8, iterations=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(active, "_FRONT", 8)
        patch.setattr(active, "OptimizeConfig", quick)
        yield


@pytest.fixture(scope="session")
def space():
    graph = trace(resnet20(10, in_channels=1, width=8), (1, 8, 8))
    return SearchSpace(graph, SpaceConfig())


@pytest.fixture(scope="session")
def cost(space):
    return CostModel(space)


@pytest.fixture(scope="session")
def truth(space):
    """A smooth score that rises in every feature: `u -> n` scores in [0.2, 1]."""
    features = FeatureMap(space)
    generator = torch.Generator().manual_seed(0)
    probe = features(torch.zeros(1, space.dimension, dtype=torch.float64)).shape[1]
    weight = torch.rand(probe, generator=generator, dtype=torch.float64)

    def score(u):
        return 0.2 + 0.8 * (features(u) @ weight / weight.sum()).sqrt()

    return score


@pytest.fixture(scope="session")
def sampler(space):
    def make(**changes):
        config = {"cost_range": [0.001, 0.02], "initial": 12, "batch": 4, "evaluations": 20}
        config |= {"population": 32, "generations": 4}
        config |= {"evaluation": {}, **changes}
        return ActiveSampler(space, SampleConfig(**config), PredictorConfig(), seed=3)

    return make


@pytest.fixture(scope="session")
def measuring(space, truth):
    """A `measure` that knows the truth and keeps its calls; the measurements `failing` fail."""

    def make(failing=()):
        calls = []

        def measure(policies):
            start = sum(len(call) for call in calls)
            calls.append(policies)
            scores = truth(space.encode(list(policies))).tolist()
            return [None if start + i in failing else s for i, s in enumerate(scores)]

        measure.calls = calls
        return measure

    return make


@pytest.fixture(scope="session")
def finished(sampler, measuring):
    """One whole run: what it measured, its rounds' policies, torch's state before and after."""
    measure = measuring()
    before = torch.get_rng_state()
    measured = sampler().run(measure)
    return measured, measure.calls, before, torch.get_rng_state()
