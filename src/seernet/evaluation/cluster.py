"""Measuring on a Dask cluster: an executor like any other, for workers that share no disk.

What measurements read, the prepared data and the baseline, is sent to each worker once, when it
joins; workers are told apart from this program by their code, which must be the same. A worker that
dies costs the measurement it was at, which the scheduler gives to another one.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from distributed import Client, Worker, WorkerPlugin, get_worker

from seernet.allocator import recycle
from seernet.errors import SeerNetError
from seernet.evaluation.records import CODE, EvaluationSpec
from seernet.store import code_digest

Result = TypeVar("Result")
Job = tuple[EvaluationSpec, dict[str, Any]]
SECONDS = 30  # for the scheduler to answer, and for a first worker
NETWORKS = Path("networks")  # code of the user's own


class Inputs(WorkerPlugin):  # type: ignore[misc]
    """What measurements read, as a worker receives it.

    Args:
        spec: Names the folders.
    """

    def __init__(self, spec: EvaluationSpec) -> None:
        folders = {"prepared": spec.prepared, "baseline": spec.baseline}
        if NETWORKS.is_dir():
            folders["networks"] = NETWORKS
        self.archive = _packed(folders)
        self.code = code_digest(CODE)
        self.name = f"seernet-{hashlib.sha256(self.archive).hexdigest()[:16]}"

    def setup(self, worker: Worker) -> None:
        """Unpack on a worker that joins, which then keeps its memory.

        Raises:
            SeerNetError: If its code would measure something else, or two things at once.
        """
        if code_digest(CODE) != self.code:
            raise SeerNetError(
                f"worker {worker.address} runs another version of seernet; install the same one."
            )
        if worker.state.nthreads != 1:
            raise SeerNetError(
                f"worker {worker.address} has {worker.state.nthreads} threads; start it with "
                "`dask worker --nthreads 1`, and one process for each policy to measure at once."
            )
        with zipfile.ZipFile(io.BytesIO(self.archive)) as archive:
            archive.extractall(Path(worker.local_directory) / self.name)
        recycle()


def _packed(folders: dict[str, Path]) -> bytes:
    """A zip archive of folders, the same for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, folder in folders.items():
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                inside = f"{name}/{path.relative_to(folder).as_posix()}"
                archive.writestr(zipfile.ZipInfo(inside), path.read_bytes())
    return buffer.getvalue()


class ClusterExecutor(Executor):
    """Runs measurements on the workers of a Dask cluster.

    Args:
        client: Connected.
        inputs: Registered with all workers.
    """

    def __init__(self, client: Client, inputs: Inputs) -> None:
        self._executor = client.get_executor(pure=False)
        self._name = inputs.name

    def submit(  # type: ignore[override]
        self, function: Callable[[Job], Result], job: Job, /
    ) -> Future[Result]:
        """Measure on some worker."""
        future: Future[Result] = self._executor.submit(_on_worker, self._name, function, job)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what was submitted, or give it up."""
        self._executor.shutdown(wait=wait and not cancel_futures)


def _on_worker(name: str, function: Callable[[Job], Result], job: Job) -> Result:
    """Measure, with the worker's own copies."""
    spec, policy = job
    folder = Path(get_worker().local_directory).resolve() / name
    os.chdir(folder)  # a network of the user's own is named by a relative path
    own = replace(spec, prepared=folder / "prepared", baseline=folder / "baseline")
    return function((own, policy))


@contextmanager
def cluster_executor(address: str, spec: EvaluationSpec) -> Iterator[Executor]:
    """Connect to a Dask scheduler, and give its workers what measurements read.

    Args:
        address: Of the scheduler, e.g. `tcp://host:8786`.
        spec: What decides a measurement beside its policy.

    Raises:
        SeerNetError: If no scheduler answers, no worker joins, or a worker does not fit.
    """
    try:
        client = Client(address, timeout=SECONDS, name="seernet", set_as_default=False)
    except (OSError, ValueError) as error:
        raise SeerNetError(
            f"no Dask scheduler answers at {address} ({' '.join(str(error).split())}); start one, "
            "or unset sample.cluster and SEERNET_CLUSTER."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=SECONDS)
        except TimeoutError as error:
            raise SeerNetError(
                f"the Dask scheduler at {address} has no workers; start some: `dask worker "
                f"--nthreads 1 {address}`."
            ) from error
        inputs = Inputs(spec)
        client.register_plugin(inputs, name=inputs.name)
        executor = ClusterExecutor(client, inputs)
        try:
            yield executor
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
