"""Use the search without DVC: your network, your training loop, your idea of a good score.

    python examples/own_training_loop.py

A small network on scikit-learn's digits; 24 policies are measured, then a policy is chosen for each
of two budgets. Takes under a minute.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from seernet.compression import compress
from seernet.config import OptimizeConfig, PredictorConfig, SampleConfig, SpaceConfig
from seernet.models import trace
from seernet.optimization import Limit, optimize
from seernet.policy import CostModel, FeatureMap, Policy, SearchSpace
from seernet.predictor import fit
from seernet.sampling import ActiveSampler

torch.set_num_threads(1)  # the network is too small for more
digits = load_digits()
images = torch.tensor(digits.images[:, None] / 8.0 - 1.0, dtype=torch.float32)
labels = torch.tensor(digits.target)
train, search = slice(0, 1200), slice(1200, None)


def train_on(network: nn.Module, steps: int, seed: int = 0) -> nn.Module:
    """Any training loop of yours."""
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(steps):
        batch = torch.randint(0, 1200, (128,), generator=generator)
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def accuracy(network: nn.Module) -> float:
    """Any score in [0, 1], on images that no training sees."""
    with torch.no_grad():
        return float((network(images[search]).argmax(1) == labels[search]).float().mean())


torch.manual_seed(0)
model = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
)
train_on(model, 300)
graph = trace(model, (1, 8, 8), 10)
space = SearchSpace(graph, SpaceConfig())
cost, features = CostModel(space), FeatureMap(space)


def evaluate(policies: Sequence[Policy]) -> list[float]:
    """Measure policies: compress, train a little, score."""
    return [accuracy(train_on(compress(model, p, graph, images[train]), 40)) for p in policies]


sample = SampleConfig(evaluations=24, initial=12, batch=6, cost_range=[0.006, 0.1])
measured = ActiveSampler(space, sample, PredictorConfig(), seed=0).run(evaluate)
scores = torch.tensor([m.score for m in measured], dtype=torch.float64)
points = features(space.encode([m.policy for m in measured]))
predictor = fit("gp", points, scores, PredictorConfig(), seed=0)

print(f"baseline: accuracy {accuracy(model):.3f}, {float(cost.baseline().bops):.3g} BOPs")
for share in (0.01, 0.03):
    budget = share * float(cost.baseline().bops)
    limit = Limit("bops", "BOPs", lambda u: cost(u).bops, budget)
    best = optimize(
        lambda u: predictor.posterior(features(u)), [limit], space.levels, OptimizeConfig(), seed=0
    )
    (policy,) = space.decode(best.u[None])
    network = train_on(compress(model, policy, graph, images[train]), 300)
    print(
        f"{share:.1%} of the BOPs: predicted {best.mean:.3f}, "
        f"finetuned {accuracy(network):.3f}, {best.costs['bops']:.3g} BOPs"
    )
