"""Where measurements run: a `concurrent.futures.Executor` of processes, one result at a time."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from typing import ParamSpec, TypeVar

from seernet.allocator import recycle
from seernet.errors import WorkerError

P = ParamSpec("P")
Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2  # items that each process is given: one to work at, one to go on with

logger = logging.getLogger(__name__)


class LocalExecutor(Executor):
    """Fresh processes, spawned, so that no state of this one leaks into a result.

    When one dies, whatever any of them was at is lost. What is submitted then goes to fewer, new
    ones: most likely the kernel killed it because memory ran out.

    Args:
        workers: Processes, at least one.

    Attributes:
        workers: Processes that there are now.
        generation: How often they were replaced.
        closed: Set when nothing more is to be run.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.generation = 0
        self.closed = threading.Event()
        self._submitting = threading.Lock()
        self._pool = self._processes()

    def submit(
        self, function: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[Result]:
        """Run a function in some process."""
        with self._submitting:
            try:
                return self._pool.submit(function, *args, **kwargs)
            except BrokenExecutor:
                if self.closed.is_set():
                    raise
                self._shrink()
                return self._pool.submit(function, *args, **kwargs)

    def shrink(self, generation: int) -> None:
        """Let half as many fresh processes run what is submitted from now on.

        Where memory ran out, a process may stay unable to compute (oneDNN's kernels on a CPU).

        Args:
            generation: Of the processes that failed; if others have replaced them, nothing is done.
        """
        with self._submitting:
            if generation == self.generation:
                self._shrink()

    def _shrink(self) -> None:
        self.workers = max(1, self.workers // 2)
        self.generation += 1
        logger.warning("memory ran out, or a worker died; going on with %d", self.workers)
        self._pool.shutdown(wait=False)  # what it was given before, it finishes
        self._pool = self._processes()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what was submitted, or only for what has begun."""
        self.closed.set()
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for what was submitted; after an error, only for what has begun."""
        self.shutdown(cancel_futures=kind is not None)

    def _processes(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.workers, mp_context=context, initializer=_begin)


def _begin() -> None:
    """Let a worker keep its memory, and end at once, silently, when its parent does."""
    recycle()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # returns when it is gone, even after SIGKILL
        os._exit(1)


def _lost(error: Exception) -> bool:
    """Whether a worker or its cluster is to blame, not what was run."""
    of_a_cluster = type(error).__module__.partition(".")[0] == "distributed"
    return of_a_cluster or isinstance(error, BrokenExecutor | CancelledError)


def completed(
    executor: Executor, function: Callable[[Item], Result], items: Sequence[Item]
) -> Generator[tuple[int, Result]]:
    """Run `function` on all items; yield each item's index and result as soon as it is there.

    Processes of this machine are given few at a time, so that few are lost with one that dies.

    Raises:
        WorkerError: If a worker died; all results that were there are yielded before. It knows
            which items were lost; the others have not begun.
    """
    waiting = iter(enumerate(items))
    window = _AHEAD * executor.workers if isinstance(executor, LocalExecutor) else len(items)
    futures: dict[Future[Result], int] = {}
    lost: list[int] = []
    broken: Exception | None = None
    try:
        while True:
            while broken is None and len(futures) < window and (item := next(waiting, None)):
                try:
                    futures[executor.submit(function, item[1])] = item[0]
                except Exception as error:
                    if not _lost(error):
                        raise
                    broken = error
                    lost.append(item[0])
            if not futures:
                break
            done, _ = wait(futures, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=futures.__getitem__):
                index = futures.pop(future)
                try:
                    result = future.result()
                except Exception as error:
                    if not _lost(error):
                        raise
                    broken = error
                    lost.append(index)
                    continue
                yield index, result
    finally:
        for future in futures:
            future.cancel()
    if broken is not None:
        cause = " ".join(f"{type(broken).__name__}: {broken}".split())[:200]
        died = WorkerError(
            f"a worker died, or its cluster went away ({cause}); finished measurements are kept: "
            "run again, with fewer sample.workers if memory ran out."
        )
        died.lost = tuple(lost)
        raise died from broken
