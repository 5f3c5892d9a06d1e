"""Measuring many policies: side by side, each kept at once, none measured twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import asdict
from threading import Lock
from typing import Any, TypeVar

from seernet.errors import SeerNetError
from seernet.evaluation.evaluator import (
    Divergence,
    Evaluation,
    EvaluationSpec,
    evaluate_policy,
    policy_divergence,
)
from seernet.parallel import completed, local_executor
from seernet.policy import Policy
from seernet.progress import Bar
from seernet.store import Context, Store, digest

Result = TypeVar("Result", Evaluation, Divergence)


CLUSTER = "SEERNET_CLUSTER"


@contextmanager
def measuring(spec: EvaluationSpec, workers: int, cluster: str | None) -> Iterator[Executor]:
    """Where policies are measured: in processes here, or on a Dask cluster.

    Args:
        spec: What decides a measurement beside its policy.
        workers: Processes, if they run here.
        cluster: Address of a Dask scheduler; if None, that of the environment's SEERNET_CLUSTER.

    Raises:
        SeerNetError: If the cluster cannot be used.
    """
    address = cluster or os.environ.get(CLUSTER)
    if not address:
        with local_executor(workers) as executor:
            yield executor
        return
    try:
        from seernet.evaluation.cluster import cluster_executor
    except ImportError as error:
        raise SeerNetError(
            f"measuring on the cluster {address} needs Dask: pip install -e '.[dask]'."
        ) from error
    with cluster_executor(address, spec) as executor:
        yield executor


def context_of(spec: EvaluationSpec) -> Context:
    """What a spec's measurements have in common, and how to say that to people."""
    description = {
        "data": spec.data.name,
        "model": spec.model.name,
        "arguments": spec.model.arguments,
        "seed": spec.seed,
        "device": spec.device,
        "evaluation": spec.config.model_dump(),
    }
    return Context(spec.digest(), description)


class Measurer:
    """Measures lists of policies through an executor and the store.

    Args:
        spec: What decides a measurement beside its policy.
        store: Where finished measurements are kept.
        executor: Where new ones run.
        bar: Progress bar to advance by one for each policy, or None.

    Attributes:
        reused: How many policies the store already knew.
    """

    def __init__(
        self, spec: EvaluationSpec, store: Store, executor: Executor, bar: Bar | None = None
    ) -> None:
        self._spec = spec
        self._context = context_of(spec)
        self._digest = self._context.digest
        self._store = store
        self._executor = executor
        self._bar = bar
        self.reused = 0
        self._counting = Lock()  # two threads may measure at once

    def __call__(self, policies: Sequence[Policy]) -> list[Evaluation]:
        """Measure policies; the results come in their order.

        A failure that is not final is reported, but not kept: a later run measures it again.

        Raises:
            SeerNetError: If a worker process died. Finished measurements are kept.
        """
        keys = [digest([self._digest, policy.to_dict()]) for policy in policies]
        return self._results(keys, policies, evaluate_policy, Evaluation)

    def divergences(self, policies: Sequence[Policy]) -> list[Divergence]:
        """Measure how far policies' untrained networks are from the baseline, in their order.

        Raises:
            SeerNetError: As for scores; also if a network cannot be compressed so.
        """
        keys = [digest([self._digest, "divergence", policy.to_dict()]) for policy in policies]
        return self._results(keys, policies, policy_divergence, Divergence)

    def _results(
        self,
        keys: Sequence[str],
        policies: Sequence[Policy],
        function: Callable[[tuple[EvaluationSpec, dict[str, Any]]], Result],
        kind: type[Result],
    ) -> list[Result]:
        found = {key: kind(**record) for key, record in self._store.get(keys).items()}
        if found:
            self._store.claim(found, self._context)
        known = sum(key in found for key in keys)
        with self._counting:
            self.reused += known
        self._advance(known)
        new = {key: p for key, p in zip(keys, policies, strict=True) if key not in found}
        jobs = [(self._spec, policy.to_dict()) for policy in new.values()]
        # Closed even if the store fails: what has not begun would otherwise still be measured.
        with closing(completed(self._executor, function, jobs)) as results:
            for index, result in results:
                key = list(new)[index]
                found[key] = result
                if not isinstance(result, Evaluation) or result.final:
                    self._store.put(key, asdict(result), self._context)
                self._advance(keys.count(key))
        return [found[key] for key in keys]

    def _advance(self, count: int) -> None:
        if self._bar is not None:
            with self._counting:
                self._bar.update(count)
