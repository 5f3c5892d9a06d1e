"""On a cluster the same is measured as here; what dies there costs no more than it was at."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from seernet.errors import SeerNetError
from seernet.evaluation import Measurer, measuring
from seernet.store import Store

pytestmark = pytest.mark.pipeline
HOST = "127.0.0.1"


def free_port():
    with socket.socket() as one:
        one.bind((HOST, 0))
        return one.getsockname()[1]


class Cluster:
    """A Dask scheduler and its workers, each a process of its own, in folders of their own."""

    def __init__(self, folder):
        self.folder = folder
        port = free_port()
        self.address = f"tcp://{HOST}:{port}"
        self.workers = []
        self.scheduler = self._start("scheduler", "--host", HOST, "--port", str(port))

    def _start(self, kind, *arguments):
        folder = self.folder / f"{kind}-{len(self.workers)}"
        folder.mkdir(parents=True)
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.dask_{kind}",
            *arguments,
            "--no-dashboard",
        ]
        with (folder / "log.txt").open("wb") as log:
            return subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )

    def add_worker(self, threads=1):
        options = ["--nthreads", str(threads), "--host", HOST, "--no-nanny"]
        options += ["--local-directory", str(self.folder / f"local-{len(self.workers)}")]
        self.workers.append(self._start("worker", self.address, *options))

    def kill(self, process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self):
        for process in (*self.workers, self.scheduler):
            self.kill(process)


@pytest.fixture
def cluster(tmp_path):
    one = Cluster(tmp_path / "cluster")
    yield one
    one.close()


@pytest.fixture(scope="module")
def here(spec, policies, tmp_path_factory):
    """What is measured without a cluster."""
    store = Store(tmp_path_factory.mktemp("here") / "evaluations.sqlite")
    with measuring(spec, 1, None) as executor:
        return Measurer(spec, store, executor)(policies)


def test_workers_that_share_no_folder_measure_the_same_to_the_bit(
    cluster, here, spec, policies, tmp_path
):
    cluster.add_worker()
    cluster.add_worker()
    with measuring(spec, 1, cluster.address) as executor:
        found = Measurer(spec, Store(tmp_path / "a.sqlite"), executor)(policies)
        assert found == here
        assert Measurer(spec, Store(tmp_path / "b.sqlite"), executor)(policies) == here
    copies = [*cluster.folder.glob("local-*/**/prepared")]
    assert len(copies) == 2  # once for each worker, not for each measurement


def test_the_environment_names_a_cluster_too(cluster, here, spec, policies, tmp_path, monkeypatch):
    monkeypatch.setenv("SEERNET_CLUSTER", cluster.address)
    cluster.add_worker()
    with measuring(spec, 1, None) as executor:
        found = Measurer(spec, Store(tmp_path / "a.sqlite"), executor)(policies[:1])
    assert found == here[:1]


def longer(spec):
    """Measurements that last long enough to be killed in the middle."""
    config = spec.config.model_copy(update={"steps": 60})
    return type(spec)(**{**vars(spec), "config": config})


def test_a_worker_that_is_killed_costs_only_what_it_was_at(cluster, spec, policies, tmp_path):
    spec = longer(spec)
    cluster.add_worker()
    cluster.add_worker()
    store = Store(tmp_path / "a.sqlite")

    class Killing(Measurer):
        """Kills a worker as soon as a first result is there."""

        def _advance(self, count):
            if count and cluster.workers[0].poll() is None:
                cluster.kill(cluster.workers[0])

    with measuring(spec, 1, cluster.address) as executor:
        found = Killing(spec, store, executor)(policies)
    with measuring(spec, 2, None) as executor:
        expected = Measurer(spec, Store(tmp_path / "b.sqlite"), executor)(policies)
    assert found == expected


def test_a_scheduler_that_goes_away_is_an_error_and_loses_nothing_finished(
    cluster, spec, policies, tmp_path
):
    spec = longer(spec)
    cluster.add_worker()
    store = Store(tmp_path / "a.sqlite")

    class Killing(Measurer):
        """Kills the scheduler as soon as a first result is there."""

        def _advance(self, count):
            if count:
                cluster.kill(cluster.scheduler)

    start = time.monotonic()
    with (
        pytest.raises(SeerNetError, match=r"cluster went away.*are kept"),
        measuring(spec, 1, cluster.address) as executor,
    ):
        Killing(spec, store, executor)(policies)
    assert time.monotonic() - start < 120
    with measuring(spec, 1, None) as executor:
        again = Measurer(spec, store, executor)
        again(policies)
    assert again.reused >= 1


def test_no_scheduler_no_worker_and_a_worker_of_two_threads_are_named(cluster, spec, monkeypatch):
    monkeypatch.setattr("seernet.evaluation.cluster.SECONDS", 3)
    with (
        pytest.raises(SeerNetError, match="no Dask scheduler answers"),
        measuring(spec, 1, f"tcp://{HOST}:{free_port()}"),
    ):
        pass
    with pytest.raises(SeerNetError, match="has no workers"), measuring(spec, 1, cluster.address):
        pass
    monkeypatch.setattr("seernet.evaluation.cluster.SECONDS", 60)
    cluster.add_worker(threads=2)
    with pytest.raises(SeerNetError, match="--nthreads 1"), measuring(spec, 1, cluster.address):
        pass
