"""Stage `sample`: measure single places, policies chosen actively, and as many at random."""

import contextlib
import itertools
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from _shared import require_one, require_trainable

from seernet import artifacts
from seernet.config import Params, load
from seernet.device import resolve
from seernet.errors import ArtifactError, BudgetError
from seernet.evaluation import Evaluation, EvaluationSpec, Measurer, measuring
from seernet.graph import NetworkGraph
from seernet.policy import (
    CostModel,
    LatencyTable,
    Policy,
    SearchSpace,
    Sensitivity,
    check_budgets,
    checked_space,
    probe_policy,
    probes,
    save_divergences,
)
from seernet.progress import bar
from seernet.sampling import ActiveSampler, Measured
from seernet.sampling.table import to_table
from seernet.stage import run
from seernet.store import Store, default_root

logger = logging.getLogger("sample")


def main() -> None:
    """Write `data/evaluations/`, two tables of measurements, and their metrics."""
    # What it measures next must not depend on the machine: a sum's rounding changes with the number
    # of threads, and so do near ties between candidates.
    torch.set_num_threads(1)
    params = resolve(load())
    space = checked_space(NetworkGraph.load(artifacts.GRAPH), params)
    warn_of_hopeless_budgets(params, space)
    spec = EvaluationSpec.of(params)
    store = Store(default_root() / "evaluations.sqlite")
    asked = probes(space)
    total = len(asked) + 2 * params.sample.evaluations
    seen: dict[str, Evaluation] = {}
    with (
        store.exclusive(),
        ThreadPoolExecutor(1) as beside,  # ends last: after an error its measurements are given up
        measuring(spec, params.sample.workers, params.sample.cluster) as executor,
        bar(total, "measuring policies", "policy") as shown,
    ):
        measurer = Measurer(spec, store, executor, shown)
        divergences = measurer.divergences([probe_policy(space, probe) for probe in asked])
        found = [(probe, d.value) for probe, d in zip(asked, divergences, strict=True)]
        sensitivity = Sensitivity(space, found)
        sampler = ActiveSampler(space, params.sample, params.predictor, params.seed, sensitivity)

        rivals = sampler.random_policies()
        size = params.sample.batch
        batches = (rivals[first : first + size] for first in range(0, len(rivals), size))
        ahead: list[Future[list[Evaluation]]] = []

        def measure(policies: Sequence[Policy]) -> list[float | None]:
            found = measurer(policies)
            require_one(found)
            if not seen:
                require_trainable(found)
            seen.update({p.key(): e for p, e in zip(policies, found, strict=True)})
            # Rivals keep the workers busy while the next policies are chosen.
            ahead.append(beside.submit(measurer, next(batches, ())))
            return [evaluation.lesson[0] for evaluation in found]

        measured = sampler.run(measure, lambda policy: seen[policy.key()].lesson[1])
        results = [evaluation for future in ahead for evaluation in future.result()]
        results += measurer(list(itertools.chain.from_iterable(batches)))
        require_one(results)
        seen.update({p.key(): e for p, e in zip(rivals, results, strict=True)})
        measured += [
            Measured(0, "random", p, e.score) for p, e in zip(rivals, results, strict=True)
        ]
    logger.info("%d of %d measurements were made before", measurer.reused, total)
    save_divergences(artifacts.SENSITIVITIES, found)
    write(measured, seen, space, sum(d.macs for d in divergences))


def warn_of_hopeless_budgets(params: Params, space: SearchSpace) -> None:
    """Name budgets that the latency table shows to be out of reach, if it is there.

    It decides no measurement, and may be one of before: `latency` may run after this.
    """
    with contextlib.suppress(ArtifactError):
        latency = LatencyTable.of_run(artifacts.LATENCY)
        if params.latency.table != "none" and latency is not None:
            try:
                check_budgets(params.budgets, CostModel(space, latency))
            except BudgetError as error:
                logger.warning("by the latency table that is there: %s", error)


def write(
    measured: Sequence[Measured], seen: dict[str, Evaluation], space: SearchSpace, probe_macs: int
) -> None:
    """Write the table, one row a measurement, and what it took in all."""
    table = to_table(measured, seen, space)
    artifacts.EVALUATIONS.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(artifacts.EVALUATIONS, index=False)
    spent = table.groupby("origin")["train_macs"].sum()
    metrics = {
        "evaluations": len(table),
        "failed": int(table["score"].isna().sum()),
        "train_macs": {
            **{str(origin): int(macs) for origin, macs in spent.items()},
            "sensitivity": probe_macs,
        },
    }
    artifacts.write_json(artifacts.METRICS / "sample.json", metrics)
    logger.info("%d measurements, %d failed", metrics["evaluations"], metrics["failed"])
    untrained = table[table["score"].isna() & table["final"]]
    if len(untrained):
        logger.warning(
            "of %d policies, %d cannot be trained, and count as a score of 0 from here on (%s)",
            *(len(table), len(untrained), untrained["error"].iloc[0]),
        )


if __name__ == "__main__":
    run(main)
