"""Where measurements run: a `concurrent.futures.Executor` of processes, one result at a time."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    as_completed,
)
from typing import ParamSpec, TypeVar

from seernet.allocator import recycle
from seernet.errors import WorkerError

P = ParamSpec("P")
Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class LocalExecutor(Executor):
    """Fresh processes, spawned, so that no state of this one leaks into a result.

    When one dies, whatever any of them was at is lost. What is submitted then goes to fewer, new
    ones: most likely the kernel killed it because memory ran out.

    Args:
        workers: Processes, at least one.

    Attributes:
        workers: Processes that there are now.
        closed: Set when nothing more is to be run.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
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

    def shrink(self) -> None:
        """Let half as many fresh processes run what is submitted from now on.

        Where memory ran out, a process may stay unable to compute (oneDNN's kernels on a CPU).
        """
        with self._submitting:
            self._shrink()

    def _shrink(self) -> None:
        self.workers = max(1, self.workers // 2)
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

    Raises:
        WorkerError: If a worker died; all results that were there are yielded before.
    """
    futures: dict[Future[Result], int] = {}
    broken: Exception | None = None
    try:
        for index, item in enumerate(items):
            futures[executor.submit(function, item)] = index
        for future in as_completed(futures):
            try:
                result = future.result()
            except Exception as error:
                if not _lost(error):
                    raise
                broken = error
                continue
            yield futures[future], result
        if broken is not None:
            raise broken
    except Exception as error:
        if not _lost(error):
            raise
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise WorkerError(
            f"a worker died, or its cluster went away ({cause}); finished measurements are kept: "
            "run again, with fewer sample.workers if memory ran out."
        ) from error
    finally:
        for future in futures:
            future.cancel()
