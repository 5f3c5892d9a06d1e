"""Stage `optimize@B`: the best predicted policy within one budget; no network, no image."""

import logging
import sys

from seernet import artifacts
from seernet.config import load
from seernet.graph import NetworkGraph
from seernet.optimization import Limit, optimize
from seernet.policy import (
    LATENCY,
    CostModel,
    FeatureMap,
    LatencyTable,
    Sensitivity,
    bounds,
    checked_space,
    load_policies,
)
from seernet.predictor import load as load_predictor
from seernet.stage import budget_argument, run

logger = logging.getLogger("optimize")


def main() -> None:
    """Write `models/policies/B.json` and its metrics."""
    params = load()
    budget = budget_argument(sys.argv, params.budgets)
    latency = LatencyTable.of_run(artifacts.LATENCY)
    space = checked_space(NetworkGraph.load(artifacts.GRAPH), params, latency)
    sensitivity = Sensitivity.load(space, artifacts.PREDICTOR_SENSITIVITIES, "fit")
    cost, features = CostModel(space, latency), FeatureMap(space, sensitivity)
    predictor = load_predictor(artifacts.PREDICTOR)
    found = bounds(params.budgets[budget], cost)
    limits = [
        Limit(b.cost, b.unit, lambda u, b=b: b.evaluate(cost, u), b.limit, b.rises)  # type: ignore[misc]
        for b in found
    ]
    solution = optimize(
        lambda u: predictor.posterior(features(u)),
        limits,
        space.levels,
        params.optimize,
        params.seed,
        load_policies(artifacts.PREDICTOR_POLICIES, space, "fit"),
    )
    bops = int(cost(solution.u[None]).bops.round())
    if bool((solution.u == 1.0).all()):
        logger.warning("%s: the budget exceeds the dearest policy, so it limits nothing", budget)
    low, high = params.sample.cost_range  # a dependency of what was measured, not of this policy
    if not low <= bops / float(cost.baseline().bops) <= high:
        logger.warning(
            "%s: its policy takes %.4g of the baseline's BOPs, where nothing was measured "
            "(`sample.cost_range` is %g to %g): do not trust its predicted score, or widen that",
            *(budget, bops / float(cost.baseline().bops), low, high),
        )
    policy = space.decode(solution.u[None])[0]
    artifacts.write_json(
        artifacts.POLICIES / f"{budget}.json",
        {"budget": budget, **policy.to_dict(), "cost_bops": bops},
    )
    used = {limit.name: solution.costs[limit.name] / limit.budget for limit in limits}
    metrics = {
        "predicted_score": solution.mean,
        "predicted_std": solution.std,
        "cost_bops": bops,
        "budget_bops": next((b.limit for b in found if b.cost == "bops"), None),
        "limits": {b.cost: b.limit for b in found},
        "slack": 1.0 - max(used.values()),
    }
    if LATENCY in solution.costs:
        metrics[LATENCY] = solution.costs[LATENCY]
    artifacts.write_json(artifacts.METRICS / "optimize" / f"{budget}.json", metrics)
    shown = ", ".join(f"{solution.costs[b.cost]:.4g} {b.unit}" for b in found)
    logger.info("%s: predicted score %.4f; %s", budget, solution.mean, shown)


if __name__ == "__main__":
    run(main)
