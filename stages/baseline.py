"""Stage `baseline@B`: the best uniform and the best random policy, finetuned in the same way."""

import itertools
import logging
import sys
from collections.abc import Sequence
from typing import Any

from _shared import own_folders, require_final

from seernet import artifacts
from seernet.config import Params, load
from seernet.device import resolve
from seernet.evaluation import (
    Evaluation,
    EvaluationSpec,
    Finetuner,
    Job,
    Measurer,
    finetune,
    measuring,
)
from seernet.policy import LATENCY, CostModel, LatencyTable, Policy, bounds, checked_space
from seernet.sampling.rivals import best_random, best_uniform
from seernet.stage import budget_argument, run
from seernet.store import Store, default_root

logger = logging.getLogger("baseline")


def main() -> None:
    """Write `results/metrics/baseline/B.json`."""
    params = resolve(load())
    budget = budget_argument(sys.argv, params.budgets)
    folders = own_folders("baseline", budget)
    finetuner = Finetuner(params, folders)
    latency = LatencyTable.of_run(artifacts.LATENCY)
    space = checked_space(finetuner.graph, params, latency)
    cost = CostModel(space, latency)
    limits = bounds(params.budgets[budget], cost)
    table = artifacts.read_table(artifacts.EVALUATIONS, "sample")
    metrics: dict[str, Any] = {
        "budget": budget,
        "metric": finetuner.task.metric,
        **{f"baseline_{k}": v for k, v in finetuner.test(finetuner.baseline).items()},
    }
    choices = {
        "uniform": best_uniform(cost, limits, lambda policies: measured(params, policies)),
        "random": best_random(cost, limits, table),
    }
    # Both may choose the same policy, which is finetuned once.
    chosen = {p.key(): p for p, _ in choices.values() if p is not None}
    seeds = params.finetune.seeds
    jobs = [
        Job(policy, seed, f"{budget}, rival {number}")
        for number, policy in enumerate(chosen.values(), 1)
        for seed in seeds
    ]
    found = iter(finetune(finetuner, jobs))
    runs = {key: list(itertools.islice(found, len(seeds))) for key in chosen}
    for method, (policy, details) in choices.items():
        metrics[method] = None
        if policy is None:
            metrics[f"{method}_reason"] = details["reason"]
            logger.warning("%s: no %s policy: %s", budget, method, details["reason"])
            continue
        record = finetuner.costs(policy, cost)
        slack = 1.0 - max(
            float(limit.evaluate(cost, space.encode([policy]))) / limit.limit for limit in limits
        )
        if any(limit.cost == LATENCY for limit in limits):
            record[LATENCY] = float(cost(space.encode([policy])).latency_ms)
        metrics[method] = {
            "bops_ratio": record["cost_bops"] / float(cost.baseline().bops),
            "predicted_score": None,
            "slack": slack,
            **details,
            **record,
            "runs": [one.to_dict() for one in runs[policy.key()]],
            "policy": policy.to_dict(),
        }
        scores = ", ".join(f"{one.test['score']:.4f}" for one in runs[policy.key()])
        logger.info("%s, %s: test score %s", budget, method, scores)
    artifacts.write_json(artifacts.METRICS / "baseline" / f"{budget}.json", metrics)
    finetuner.finish()


def measured(params: Params, policies: Sequence[Policy]) -> list[Evaluation]:
    """The short evaluations of policies, as `sample` makes them.

    Raises:
        SeerNetError: If the machine made one fail: fewer candidates would flatter SeerNet.
    """
    spec = EvaluationSpec.of(params)
    store = Store(default_root() / "evaluations.sqlite")
    with measuring(spec, params.sample.workers, params.sample.cluster) as executor:
        found = Measurer(spec, store, executor)(policies)
    require_final(found)
    return found


if __name__ == "__main__":
    run(main)
