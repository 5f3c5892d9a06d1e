"""Does the short evaluation rank policies as full finetuning does, and at what cost?

Policies spread over the cost range are measured by short evaluations of several lengths, and
finetuned in full. Kendall's tau between the two is shown beside what an evaluation costs, as a
share of the full finetuning's compute, with 95 % intervals bootstrapped over policies. Both scores
are of the search split: the test split has no say in a default. Everything measured is kept in
`.store/`, so an interrupted run goes on.

`--budget` asks the harder question: which of the policies that cost the same is best? They are the
uniform ones, and the best that predictors fitted to random halves of the run's measurements find.

Run the pipeline as far as the baseline first, with `--budget` as far as the measurements;
`params.yaml` says the rest.

    dvc repro pretrain && python benchmarks/fidelity.py
    dvc repro fit && python benchmarks/fidelity.py --budget small --finetunings 3
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from _shared import ROOT, Array, write_summary
from scipy.stats import kendalltau

from seernet import artifacts
from seernet.config import Params, load
from seernet.device import resolve
from seernet.evaluation import EvaluationSpec, Finetuner, Folders, Job, Measurer
from seernet.graph import NetworkGraph
from seernet.optimization import Limit, optimize
from seernet.parallel import LocalExecutor, completed
from seernet.policy import CostModel, FeatureMap, Policy, SearchSpace, Sensitivity, bounds
from seernet.predictor import fit
from seernet.progress import Bar, bar
from seernet.sampling import SpreadDesign, uniform_candidates
from seernet.store import Store, default_root, digest

STEPS = (0, 25, 50, 100, 200, 400)
DESIGN_SEED = 104_729  # policies of their own, which no search of the pipeline draws
RESAMPLES = 2000


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", type=int, default=48, help="how many (default 48)")
    parser.add_argument("--finetunings", type=int, default=1, help="of each policy (default 1)")
    parser.add_argument("--budget", help="a budget that all policies just fit")
    arguments = parser.parse_args()
    if arguments.policies < 8:
        parser.error("--policies must be at least 8: a rank correlation of fewer says nothing")
    os.chdir(ROOT)
    params = resolve(load())
    seeds = list(range(arguments.finetunings))
    section = params.finetune.model_copy(update={"seeds": seeds})
    params = params.model_copy(update={"finetune": section})
    space = SearchSpace(NetworkGraph.load(artifacts.GRAPH), params.space)
    if arguments.budget is None:
        low, high = params.sample.cost_range
        design = SpreadDesign(space, (low, high), params.seed + DESIGN_SEED)
        policies = space.decode(design.draw_many(0, arguments.policies))
    elif arguments.budget in params.budgets:
        policies = equal_cost(params, space, arguments.budget, arguments.policies)
    else:
        parser.error(f"--budget must be one of {', '.join(params.budgets)}")
    total = len(policies) * (len(STEPS) + len(params.finetune.seeds))
    with (
        LocalExecutor(params.sample.workers) as executor,
        bar(total, "measuring policies", "policy") as shown,
    ):
        short = {steps: measure(params, policies, steps, executor, shown) for steps in STEPS}
        truth, full = finetune(params, policies, executor, shown)
    rows = [
        {"steps": steps, "cost": float((macs / full).mean()), **agreement(scores, truth)}
        for steps, (scores, macs) in short.items()
    ]
    name = "fidelity" if arguments.budget is None else f"fidelity-{arguments.budget}"
    default = params.sample.evaluation.steps
    write_summary(name, {"policies": len(policies), "default": default, "rows": rows})
    print(render(rows, params.sample.evaluation.steps))


def equal_cost(params: Params, space: SearchSpace, budget: str, count: int) -> list[Policy]:
    """Different policies that just fit a budget, `count` at most: uniform ones, then optima."""
    table = artifacts.read_table(artifacts.EVALUATIONS, "sample")
    table = table[table["score"].notna()].reset_index(drop=True)
    rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    points = space.encode([Policy.from_row(row) for row in rows])
    scores, soft = (
        torch.tensor(table[name].to_numpy(), dtype=torch.float64)
        for name in ("score", "soft_score")
    )
    sensitivity = Sensitivity.load(space, artifacts.SENSITIVITIES, "sample")
    cost, features = CostModel(space), FeatureMap(space, sensitivity)
    found = bounds(params.budgets[budget], cost)
    limits = [Limit(b.cost, b.unit, partial(b.evaluate, cost), b.limit, b.rises) for b in found]
    policies = {p.key(): p for p in space.decode(uniform_candidates(cost, found))}
    for seed in range(count):
        half = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
        half = half[: len(points) // 2]
        predictor = fit("gp", features(points[half]), scores[half], params.predictor, 0, soft[half])
        solution = optimize(
            lambda u, p=predictor: p.posterior(features(u)),  # type: ignore[misc]
            limits,
            space.levels,
            params.optimize,
            seed,
        )
        (policy,) = space.decode(solution.u[None])
        policies[policy.key()] = policy
        if len(policies) >= count:
            break
    return list(policies.values())[:count]


def measure(
    params: Params, policies: Sequence[Policy], steps: int, executor: Executor, shown: Bar
) -> tuple[Array, Array]:
    """Scores and compute (MACs) of short evaluations of one length; a failed one scores 0."""
    spec = EvaluationSpec.of(params)
    spec = replace(spec, config=spec.config.model_copy(update={"steps": steps}))
    found = Measurer(spec, Store(default_root() / "evaluations.sqlite"), executor, shown)(policies)
    return np.array([e.score or 0.0 for e in found]), np.array([float(e.train_macs) for e in found])


def finetune(
    params: Params, policies: Sequence[Policy], executor: Executor, shown: Bar
) -> tuple[Array, Array]:
    """Mean scores over the seeds of full finetuning, and the compute (MACs) of one."""
    store = Store(default_root() / "fidelity.sqlite")
    spec = EvaluationSpec.of(params).digest()
    config = params.finetune.model_dump(exclude={"seeds"})
    keys = [digest([spec, config, p.to_dict(), s]) for p in policies for s in params.finetune.seeds]
    jobs = [(params, policy.to_dict(), s) for policy in policies for s in params.finetune.seeds]
    found = store.get(keys)
    shown.update(len(found))
    missing = [i for i, key in enumerate(keys) if key not in found]
    for place, record in completed(executor, finetune_one, [jobs[i] for i in missing]):
        key = keys[missing[place]]
        found[key] = record
        store.put(key, record)
        shown.update()
    records = [found[key] for key in keys]
    shape = (len(policies), len(params.finetune.seeds))
    scores = np.array([record["score"] for record in records]).reshape(shape)
    macs = np.array([float(record["train_macs"]) for record in records]).reshape(shape)
    return scores.mean(axis=1), macs.mean(axis=1)


def finetune_one(job: tuple[Params, dict[str, Any], int]) -> dict[str, float]:
    """Finetune one policy with one seed, in a worker process."""
    params, document, seed = job
    own = default_root() / "progress" / f"fidelity-{digest([document, seed])[:16]}"
    folders = Folders(artifacts.PREPARED, artifacts.BASELINE, own)
    section = params.finetune.model_copy(update={"seeds": [seed]})
    finetuner = Finetuner(params.model_copy(update={"finetune": section}), folders)
    policy = Policy.from_dict(document)
    costs = finetuner.costs(policy, CostModel(SearchSpace(finetuner.graph, params.space)))
    found = finetuner.run(Job(policy, seed, "full"))
    finetuner.finish()
    return {"score": found.search_score, "train_macs": costs["train_macs"]}


def agreement(scores: Array, truth: Array) -> dict[str, float]:
    """Kendall's tau-b with a 95 % interval, bootstrapped over policies."""
    generator = np.random.default_rng(0)
    draws = generator.integers(0, len(truth), (RESAMPLES, len(truth)))
    taus = [kendalltau(scores[draw], truth[draw]).statistic for draw in draws]
    low, high = np.nanquantile(taus, (0.025, 0.975))
    tau = float(kendalltau(scores, truth).statistic)
    return {"kendall_tau": tau, "low": float(low), "high": float(high)}


def render(rows: Sequence[dict[str, float]], default: int) -> str:
    """The table for a terminal (Markdown)."""
    lines = ["| steps | compute / full finetuning | Kendall tau |", "| --- | --- | --- |"]
    for row in rows:
        steps = f"{row['steps']:g}" + (" (default)" if row["steps"] == default else "")
        tau = f"{row['kendall_tau']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        lines.append(f"| {steps} | {100 * row['cost']:.1f} % | {tau} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
