"""Work in other processes: every result once, and no process left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from seernet.errors import DataError, SeerNetError, WorkerError
from seernet.parallel import LocalExecutor, completed


def square(number):
    return number * number


def suicide(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def start_method(number):
    return multiprocessing.get_start_method()


def fail(number):
    raise DataError(f"number {number} is odd; take an even one.")


def test_each_result_comes_with_the_index_of_its_item():
    with LocalExecutor(2) as executor:
        assert dict(completed(executor, square, [5, 3, 5, 0])) == {0: 25, 1: 9, 2: 25, 3: 0}


def test_results_come_as_soon_as_they_are_there():
    with ThreadPoolExecutor(2) as executor:
        order = [i for i, _ in completed(executor, time.sleep, [0.5, 0.0])]
    assert order == [1, 0]


def test_nothing_to_do_is_fine():
    with ThreadPoolExecutor(1) as executor:
        assert list(completed(executor, square, [])) == []


def test_workers_are_spawned():
    with LocalExecutor(1) as executor:
        assert list(completed(executor, start_method, [0])) == [(0, "spawn")]


def test_error_of_the_work_passes_through():
    with LocalExecutor(1) as executor, pytest.raises(DataError, match="take an even one"):
        list(completed(executor, fail, [1]))


def test_killed_worker_is_an_error_with_a_remedy():
    with LocalExecutor(1) as executor:
        results = completed(executor, suicide, [0, 1, 2])
        assert next(results) == (0, 0)
        with pytest.raises(
            SeerNetError, match=r"a worker died, or its cluster went away .* fewer sample\.workers"
        ):
            list(results)


def test_half_as_many_workers_take_over_from_one_that_was_killed():
    with LocalExecutor(2) as executor:
        with pytest.raises(SeerNetError, match="a worker died"):
            list(completed(executor, suicide, [1]))
        assert list(completed(executor, suicide, [0])) == [(0, 0)]
        assert executor.workers == 1
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)


def test_few_items_are_lost_with_a_worker_that_dies():
    items = [0, 0, 0, 1, *[0] * 40]
    found = []
    with LocalExecutor(1) as executor, pytest.raises(WorkerError) as died:
        for index, _ in completed(executor, suicide, items):
            found.append(index)
    assert found[:3] == [0, 1, 2]
    assert 3 in died.value.lost
    assert not set(found) & set(died.value.lost)
    assert len(found) + len(died.value.lost) <= 6


def test_processes_that_were_replaced_are_not_replaced_once_more():
    with LocalExecutor(4) as executor:
        first = executor.generation
        executor.shrink(first)
        executor.shrink(first)
        assert (executor.workers, executor.generation) == (2, first + 1)


class Breaking:
    """An executor that has broken after it finished some work."""

    def submit(self, function, item):
        future = Future()
        if item < 0:
            future.set_exception(BrokenProcessPool("killed"))
        else:
            future.set_result(function(item))
        return future


def test_what_finished_before_a_break_is_all_there():
    results = completed(Breaking(), square, [-1, 2, -1, 3, 4])
    found = {}
    with pytest.raises(SeerNetError, match="a worker died, or its cluster went away"):
        for index, result in results:
            found[index] = result
    assert found == {1: 4, 3: 9, 4: 16}


class Waiting:
    """An executor that finishes the first item only."""

    def __init__(self):
        self.futures = []

    def submit(self, function, item):
        self.futures.append(Future())
        if len(self.futures) == 1:
            self.futures[0].set_result(function(item))
        return self.futures[-1]


def test_closing_cancels_what_has_not_begun():
    executor = Waiting()
    results = completed(executor, square, [1, 2, 3])
    assert next(results) == (0, 1)
    results.close()
    assert [future.cancelled() for future in executor.futures] == [False, True, True]


PARENT = """
import os, signal, sys, time
from seernet.parallel import LocalExecutor

if __name__ == "__main__":
    executor = LocalExecutor(1)
    print(executor.submit(os.getpid).result(), flush=True)
    executor.submit(time.sleep, 600)
    time.sleep(600)
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_a_parent_that_is_killed(tmp_path, how):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        assert alive(worker)
        parent.send_signal(how)
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)
