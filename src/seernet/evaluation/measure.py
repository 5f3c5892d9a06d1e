"""Measuring many policies: side by side, each kept at once, none measured twice."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import asdict
from threading import Lock
from typing import Any, TypeVar

from seernet.errors import ArtifactError, SeerNetError, WorkerError
from seernet.evaluation.evaluator import evaluate_policy, policy_divergence
from seernet.evaluation.records import Divergence, Evaluation, EvaluationSpec
from seernet.parallel import LocalExecutor, completed
from seernet.policy import Policy
from seernet.progress import Bar
from seernet.store import Context, Store, digest

Job = tuple[EvaluationSpec, dict[str, Any]]
Result = TypeVar("Result", Evaluation, Divergence)

CLUSTER = "SEERNET_CLUSTER"
INTERRUPT_SECONDS = 1.0  # in which an interrupt that ended the workers closes their executor

logger = logging.getLogger(__name__)


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
        with LocalExecutor(workers) as local:
            yield local
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
        self._one_alone = Lock()

    def __call__(self, policies: Sequence[Policy]) -> list[Evaluation]:
        """Measure policies; the results come in their order.

        What fails because of the machine (memory ran out, a process was killed) is measured again,
        alone, with the same outcome as if it had not failed. If it fails alone too, that is
        reported, but not kept: a later run measures it again.

        Raises:
            WorkerError: If a cluster's worker died. Finished measurements are kept.
        """
        keys = [digest([self._digest, policy.to_dict()]) for policy in policies]
        return self._results(keys, policies, evaluate_policy, Evaluation, _failed)

    def divergences(self, policies: Sequence[Policy]) -> list[Divergence]:
        """Measure how far policies' untrained networks are from the baseline, in their order.

        Raises:
            SeerNetError: If a network cannot be compressed so, or its worker died alone too.
        """
        keys = [digest([self._digest, "divergence", policy.to_dict()]) for policy in policies]
        return self._results(keys, policies, policy_divergence, Divergence, _raise)

    def _results(
        self,
        keys: Sequence[str],
        policies: Sequence[Policy],
        function: Callable[[Job], Result],
        kind: type[Result],
        died: Callable[[WorkerError], Result],
    ) -> list[Result]:
        try:
            found = {key: kind(**record) for key, record in self._store.get(keys).items()}
        except (TypeError, ValueError) as error:
            raise ArtifactError(
                f"the store {self._store.path} holds a record that is no measurement ({error}); "
                "`make store-verify` names it."
            ) from error
        if found:
            self._store.claim(found, self._context)
        known = sum(key in found for key in keys)
        with self._counting:
            self.reused += known
        self._advance(known)
        jobs = {
            key: (self._spec, policy.to_dict())
            for key, policy in zip(keys, policies, strict=True)
            if key not in found
        }
        # Closed even if the store fails: what has not begun would otherwise still be measured.
        with closing(self._attempts(function, jobs, died)) as results:
            for key, result in results:
                found[key] = result
                if _final(result):
                    self._store.put(key, asdict(result), self._context)
                self._advance(keys.count(key))
        return [found[key] for key in keys]

    def _attempts(
        self,
        function: Callable[[Job], Result],
        jobs: dict[str, Job],
        died: Callable[[WorkerError], Result],
    ) -> Generator[tuple[str, Result]]:
        """Each job's result: of all side by side, but alone of those that the machine failed."""
        left, executor = dict(jobs), self._executor
        while left:
            keys, failed = list(left), []
            generation = executor.generation if isinstance(executor, LocalExecutor) else 0
            with closing(completed(executor, function, list(left.values()))) as results:
                try:
                    for index, result in results:
                        if _final(result):
                            del left[keys[index]]
                            yield keys[index], result
                        else:
                            failed.append(keys[index])
                            self._replace(generation)  # the next ones meet fresh processes
                except WorkerError as error:
                    if not isinstance(executor, LocalExecutor):
                        raise
                    if executor.closed.wait(INTERRUPT_SECONDS):
                        raise
                    failed += [keys[index] for index in error.lost]
            if failed:
                self._replace(generation)
            for key in failed:
                try:
                    result = self._alone(function, left.pop(key))
                except WorkerError as error:
                    result = died(error)
                yield key, result

    def _replace(self, generation: int) -> None:
        if isinstance(self._executor, LocalExecutor):
            self._executor.shrink(generation)

    def _alone(self, function: Callable[[Job], Result], job: Job) -> Result:
        """Measure again, where no other measurement takes part of the memory."""
        logger.warning("a measurement failed because of this machine; making it again, alone")
        if not isinstance(self._executor, LocalExecutor):
            return next(completed(self._executor, function, [job]))[1]
        with self._one_alone, LocalExecutor(1) as executor:
            return next(completed(executor, function, [job]))[1]

    def _advance(self, count: int) -> None:
        if self._bar is not None:
            with self._counting:
                self._bar.update(count)


def _failed(error: WorkerError) -> Evaluation:
    return Evaluation(None, 0, f"{type(error).__name__}: {error}", final=False)


def _raise(error: WorkerError) -> Divergence:
    raise error


def _final(result: Evaluation | Divergence) -> bool:
    """Whether measuring again would give the same."""
    return not isinstance(result, Evaluation) or result.final
