"""Stage `front`: the best predicted policy at many costs, from which people choose budgets."""

import pandas as pd
import torch

from seernet import artifacts
from seernet.config import load
from seernet.graph import NetworkGraph
from seernet.optimization import Limit, optimize_many
from seernet.policy import CostModel, FeatureMap, Sensitivity, checked_space, load_policies
from seernet.predictor import load as load_predictor
from seernet.stage import run


def main() -> None:
    """Write `results/front.csv`.

    It spans `sample.cost_range`, where the predictor has seen measurements, as far as the search
    space reaches.
    """
    params = load()
    space = checked_space(NetworkGraph.load(artifacts.GRAPH), params)
    sensitivity = Sensitivity.load(space, artifacts.PREDICTOR_SENSITIVITIES, "fit")
    cost, features = CostModel(space), FeatureMap(space, sensitivity)
    predictor = load_predictor(artifacts.PREDICTOR)
    baseline = float(cost.baseline().bops)
    cheapest, dearest = cost(space.ends).bops.tolist()
    low, high = (share * baseline for share in params.sample.cost_range)
    limits = spread((max(cheapest, low), min(dearest, high)), params.report.front_points)
    solutions = optimize_many(
        lambda u: predictor.posterior(features(u)),
        Limit("bops", "BOPs", lambda u: cost(u).bops, float("inf")),
        limits,
        space.levels,
        params.optimize,
        params.seed,
        known=load_policies(artifacts.PREDICTOR_POLICIES, space, "fit"),
    )
    costs = cost(torch.stack([solution.u for solution in solutions]))
    bops = costs.bops
    table = pd.DataFrame(
        {
            "cost_bops": bops.round().to(torch.int64).tolist(),
            "bops_ratio": (bops / baseline).tolist(),
            "macs": costs.macs.round().to(torch.int64).tolist(),
            "size_bytes": costs.size_bytes.ceil().to(torch.int64).tolist(),
            "mean": [solution.mean for solution in solutions],
            "std": [solution.std for solution in solutions],
        }
    )
    artifacts.FRONT.parent.mkdir(parents=True, exist_ok=True)
    table.drop_duplicates("cost_bops").to_csv(artifacts.FRONT, index=False)


def spread(ends: tuple[float, float], count: int) -> torch.Tensor:
    """Costs from one end to the other, equal steps in logarithm, none below the lower end.

    Args:
        ends: The smallest and the largest, in BOPs.
        count: How many; at least two.
    """
    low, high = ends
    shares = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
    # Rounding may fall below the cheapest policy, for which there would be no solution.
    return (low * (high / low) ** shares).clamp_min(low)


if __name__ == "__main__":
    run(main)
