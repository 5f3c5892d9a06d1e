"""Stage `front`: the best predicted policy at many costs, from which people choose budgets."""

import pandas as pd
import torch

from seernet import artifacts
from seernet.config import load
from seernet.graph import NetworkGraph
from seernet.optimization import Limit, optimize_many
from seernet.policy import CostModel, FeatureMap, checked_space
from seernet.predictor import load as load_predictor
from seernet.stage import run


def main() -> None:
    """Write `results/front.csv`."""
    params = load()
    space = checked_space(NetworkGraph.load(artifacts.GRAPH), params)
    cost, features = CostModel(space), FeatureMap(space)
    predictor = load_predictor(artifacts.PREDICTOR)
    baseline = float(cost.baseline().bops)
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, space.dimension)
    cheapest, dearest = (cost(ends).bops / baseline).tolist()
    low = max(cheapest, params.sample.cost_range[0])
    high = min(dearest, params.sample.cost_range[1])
    shares = torch.linspace(0.0, 1.0, params.report.front_points, dtype=torch.float64)
    limits = baseline * low * (high / low) ** shares
    solutions = optimize_many(
        lambda u: predictor.posterior(features(u)),
        Limit("bops", "BOPs", lambda u: cost(u).bops, float("inf")),
        limits,
        space.levels,
        params.optimize,
        params.seed,
    )
    bops = cost(torch.stack([solution.u for solution in solutions])).bops
    table = pd.DataFrame(
        {
            "cost_bops": bops.round().to(torch.int64).tolist(),
            "bops_ratio": (bops / baseline).tolist(),
            "mean": [solution.mean for solution in solutions],
            "std": [solution.std for solution in solutions],
        }
    )
    artifacts.FRONT.parent.mkdir(parents=True, exist_ok=True)
    table.drop_duplicates("cost_bops").to_csv(artifacts.FRONT, index=False)


if __name__ == "__main__":
    run(main)
