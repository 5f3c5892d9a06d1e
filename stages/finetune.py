"""Stage `finetune@B`: compress the baseline by a budget's policy, train it on, test it."""

import logging
import sys

from seernet import artifacts
from seernet.config import load
from seernet.curves import Curves
from seernet.device import resolve_device
from seernet.evaluation import Finetuner, Folders
from seernet.policy import CostModel, Policy, checked_space
from seernet.stage import budget_argument, run
from seernet.store import default_root

logger = logging.getLogger("finetune")


def main() -> None:
    """Write `models/finetuned/B/`, its metrics and its training curves."""
    params = load()
    budget = budget_argument(sys.argv, params.budgets)
    folders = Folders(artifacts.PREPARED, artifacts.BASELINE, default_root() / "progress")
    finetuner = Finetuner(params, folders, resolve_device(params.device))
    cost = CostModel(checked_space(finetuner.graph, params))
    path = artifacts.POLICIES / f"{budget}.json"
    policy = Policy.from_dict(artifacts.read_json(path, f"optimize@{budget}"))
    promised = artifacts.read_json(
        artifacts.METRICS / "optimize" / f"{budget}.json", f"optimize@{budget}"
    )
    output = artifacts.FINETUNED / budget
    with Curves(artifacts.TRAINING / "finetune" / budget) as curves:
        record = finetuner.run(policy, cost, budget, output, curves.log_seed)
    metrics = {
        "budget": budget,
        "metric": finetuner.task.metric,
        "baseline_score": finetuner.test_score(finetuner.baseline),
        "bops_ratio": record["cost_bops"] / float(cost.baseline().bops),
        "predicted_score": promised["predicted_score"],
        **record,
    }
    artifacts.write_json(artifacts.METRICS / "finetune" / f"{budget}.json", metrics)
    finetuner.finish()
    scores = ", ".join(f"{run['test_score']:.4f}" for run in record["runs"])
    logger.info("%s: test score %s, baseline %.4f", budget, scores, metrics["baseline_score"])


if __name__ == "__main__":
    run(main)
