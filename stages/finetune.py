"""Stage `finetune@B`: compress the baseline by a budget's policy, train it on, test it."""

import logging
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from _shared import own_folders

from seernet import artifacts
from seernet.config import Params, load
from seernet.curves import Curves
from seernet.device import resolve
from seernet.distributed import Team, joined, launch
from seernet.errors import ArtifactError, PolicyError, SeerNetError
from seernet.evaluation import Finetuner, Job, finetune
from seernet.policy import LATENCY, Bound, CostModel, Policy, bounds, checked_space, without_latency
from seernet.stage import budget_argument, run

logger = logging.getLogger("finetune")


def main() -> None:
    """Write `models/finetuned/B/`, its metrics and its training curves."""
    params = resolve(load())
    budget = budget_argument(sys.argv, params.budgets)
    with joined(params.device) as team:
        finetune_budget(params, budget, team)


def finetune_budget(params: Params, budget: str, team: Team) -> None:
    """Finetune one budget's network, by all processes of a team; the one that leads writes it."""
    folders = own_folders("finetune", budget)
    finetuner = Finetuner(params, folders, team)
    cost = CostModel(checked_space(finetuner.graph, params))
    path = artifacts.POLICIES / f"{budget}.json"
    try:
        policy = Policy.from_dict(artifacts.read_json(path, f"optimize@{budget}"))
    except PolicyError as error:
        raise ArtifactError(
            f"{path} is damaged ({error}); run `dvc repro -f optimize@{budget}`."
        ) from error
    promised = artifacts.read_json(
        artifacts.METRICS / "optimize" / f"{budget}.json", f"optimize@{budget}"
    )
    output = artifacts.FINETUNED / budget
    record = finetuner.costs(policy, cost)
    # Milliseconds are the table's, which `optimize` read; nothing can be counted here.
    check_limits(budget, bounds(without_latency(params.budgets[budget]), cost), record)
    if LATENCY in promised:
        record[LATENCY] = promised[LATENCY]
    before = finetuner.test(finetuner.baseline)
    jobs = [Job(policy, seed, budget, output) for seed in params.finetune.seeds]
    runs = finetune(finetuner, jobs)
    if not team.leads:
        return
    with Curves(artifacts.TRAINING / "finetune" / budget) as curves:
        for one in runs:
            for row in one.history:
                curves.log_seed(one.seed, row)
    metrics = {
        "budget": budget,
        "metric": finetuner.task.metric,
        **{f"baseline_{k}": v for k, v in before.items()},
        "bops_ratio": record["cost_bops"] / float(cost.baseline().bops),
        "predicted_score": promised["predicted_score"],
        **record,
        "runs": [one.to_dict() for one in runs],
    }
    artifacts.write_json(artifacts.METRICS / "finetune" / f"{budget}.json", metrics)
    finetuner.finish()
    scores = ", ".join(f"{one.test['score']:.4f}" for one in runs)
    logger.info("%s: test score %s, baseline %.4f", budget, scores, metrics["baseline_score"])


def check_limits(budget: str, limits: Iterable[Bound], counted: Mapping[str, Any]) -> None:
    """Hold what was counted on the finetuned network against the budget it was made for.

    Args:
        budget: Name of the budget.
        limits: Its limits.
        counted: `cost_bops`, `macs` and `size_bytes` of the network.

    Raises:
        SeerNetError: If one exceeds its limit, rounded up as counted bytes are.
    """
    for limit in limits:
        value = counted["cost_bops" if limit.cost == "bops" else limit.cost]
        if value > math.ceil(limit.limit):
            raise SeerNetError(
                f"budget `{budget}` allows {limit.limit:.12g} {limit.unit}, its finetuned network "
                f"needs {value}; run `dvc repro -f optimize@{budget}`, and report it if it stays."
            )


if __name__ == "__main__":
    launch()
    run(main)
