"""Many policies: none measured twice, nothing that finished lost."""

import json
import os
import resource
import signal
import sqlite3
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from seernet.errors import ArtifactError, SeerNetError, WorkerError
from seernet.evaluation import Divergence, Evaluation, Evaluator, Measurer, measure
from seernet.parallel import LocalExecutor
from seernet.policy import Policy
from seernet.progress import bar
from seernet.store import Store


class Executor:
    """Runs work at once, in this process; breaks after so many calls."""

    def __init__(self, capacity=1000):
        self.capacity = capacity

    def submit(self, function, item):
        future = Future()
        if self.capacity == 0:
            future.set_exception(BrokenProcessPool("killed"))
        else:
            self.capacity -= 1
            future.set_result(function(item))
        return future


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "evaluations.sqlite")


@pytest.fixture
def asked(monkeypatch):
    """Replace the measurement by the sum of a policy's weight bits; the list of what was asked."""
    calls = []

    def evaluate(job):
        _, policy = job
        calls.append(policy)
        return Evaluation(sum(policy["weight_bits"].values()) / 1000, 10)

    monkeypatch.setattr(measure, "evaluate_policy", evaluate)
    return calls


def bits(policy):
    return sum(policy.weight_bits.values()) / 1000


def test_results_come_in_the_order_of_the_policies(spec, store, policies, asked):
    found = Measurer(spec, store, Executor())([*policies[2:], *policies[:2]])
    expected = [bits(policy) for policy in [*policies[2:], *policies[:2]]]
    assert [evaluation.score for evaluation in found] == expected
    assert len(set(expected)) == 4


def test_store_spares_measurements(spec, store, policies, asked):
    first = Measurer(spec, store, Executor())(policies[:2])
    again = Measurer(spec, store, Executor())(policies[:3])
    assert again[:2] == first
    assert asked == [policy.to_dict() for policy in policies[:3]]


def test_records_know_what_they_are_of(spec, store, policies, asked):
    measurer = Measurer(spec, store, Executor())
    measurer(policies[:1])
    (row,) = store.rows()
    assert row.context == spec.digest()
    description = store.contexts()[row.context]
    assert description["model"] == spec.model.name
    assert description["evaluation"]["steps"] == spec.config.steps
    older = Store(store.path.with_name("older.sqlite"))  # where it has no context yet
    older.put(row.key, json.loads(row.text))
    Measurer(spec, older, Executor())(policies[:1])
    assert [found.context for found in older.rows()] == [row.context]
    assert len(asked) == 1


def test_a_record_that_is_no_measurement_is_refused(spec, store, policies, asked):
    Measurer(spec, store, Executor())(policies[:1])
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE records SET record = '{\"value\": 7}'")
    with pytest.raises(ArtifactError, match="no measurement"):
        Measurer(spec, store, Executor())(policies[:1])
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE records SET record = 'torn'")
    with pytest.raises(ArtifactError, match=r"no measurement.*make store-verify"):
        Measurer(spec, store, Executor())(policies[:1])


def test_equal_policies_are_measured_once(spec, store, policies, asked):
    with bar(3, "measuring", "policy") as shown:
        measurer = Measurer(spec, store, Executor(), shown)
        one, other, same = measurer([policies[0], policies[1], policies[0]])
        assert shown.n == 3
    assert len(asked) == 2
    assert one == same != other


def test_another_specification_shares_nothing(spec, store, policies, asked):
    Measurer(spec, store, Executor())(policies[:1])
    Measurer(replace(spec, seed=1), store, Executor())(policies[:1])
    assert len(asked) == 2


def test_what_finished_before_the_executor_died_is_kept(spec, store, policies, asked):
    with pytest.raises(SeerNetError, match="finished measurements are kept"):
        Measurer(spec, store, Executor(capacity=2))(policies)
    assert len(asked) == 2
    found = Measurer(spec, store, Executor())(policies)
    assert len(asked) == 4
    assert [evaluation.score for evaluation in found] == [bits(policy) for policy in policies]


def ending(monkeypatch, *errors):
    """Let measurements end so, one after the other: with an error, or with a score."""
    left = iter(errors)

    def evaluate(job):
        error = next(left)
        return Evaluation(None if error else 0.5, 10, error, final=error != MEMORY)

    monkeypatch.setattr(measure, "evaluate_policy", evaluate)


MEMORY = "RuntimeError: CUDA out of memory"


def test_failure_of_the_policy_is_kept_with_its_cause(spec, store, policies, monkeypatch):
    ending(monkeypatch, "the loss is nan", "")
    found = Measurer(spec, store, Executor())(policies[:2])
    assert [evaluation.error for evaluation in found] == ["the loss is nan", ""]
    assert Measurer(spec, store, Executor(capacity=0))(policies[:2]) == found


def test_what_memory_failed_is_measured_again_after_the_others(spec, store, policies, monkeypatch):
    ending(monkeypatch, MEMORY, "", "the loss is nan")
    found = Measurer(spec, store, Executor())(policies[:2])
    assert [evaluation.error for evaluation in found] == ["the loss is nan", ""]
    assert Measurer(spec, store, Executor(capacity=0))(policies[:2]) == found


def test_what_memory_failed_twice_is_reported_but_not_kept(spec, store, policies, monkeypatch):
    ending(monkeypatch, MEMORY, "", MEMORY, "")
    with bar(2, "measuring", "policy") as shown:
        found = Measurer(spec, store, Executor(), shown)(policies[:2])
        assert shown.n == 2
    assert [evaluation.error for evaluation in found] == [MEMORY, ""]
    assert [evaluation.score for evaluation in Measurer(spec, store, Executor())(policies[:2])] == [
        0.5,
        0.5,
    ]


def evaluate_on_a_small_machine(job):
    """In other processes: memory runs out once, for real; and one policy kills whoever measures it.

    Raises the need beyond a limit on the address space; the kernel's own killer sends SIGKILL too.
    """
    spec, policy = job
    if policy["weight_bits"] == json.loads(os.environ["DEADLY"]):
        os.kill(os.getpid(), signal.SIGKILL)
    ran_out = Path(os.environ["RAN_OUT"])
    evaluator = Evaluator(spec)
    if not ran_out.exists():
        ran_out.touch()
        evaluator.images = evaluator.images.repeat(2048, 1, 1, 1)
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = used * resource.getpagesize() + (1 << 24)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return evaluator.evaluate(Policy.from_dict(policy))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_costs_no_measurement_but_of_a_policy_that_fails_alone(
    spec, store, policies, monkeypatch, tmp_path, caplog
):
    monkeypatch.setattr(measure, "evaluate_policy", evaluate_on_a_small_machine)
    monkeypatch.setenv("RAN_OUT", str(tmp_path / "ran out"))
    monkeypatch.setenv("DEADLY", json.dumps(policies[1].weight_bits))
    with LocalExecutor(1) as executor:
        found = Measurer(spec, store, executor)(policies[:2])
    assert (tmp_path / "ran out").exists()
    assert found[0] == Evaluator(spec).evaluate(policies[0])
    assert (found[1].score, found[1].final) == (None, False)
    assert found[1].error.startswith("WorkerError: a worker died")
    assert caplog.text.count("making it again, alone") == 2
    assert len(store.rows()) == 1


def deadly_once(job):
    """In other processes: kills whoever meets the deadly policy first, and measures it then."""
    _, policy = job
    died = Path(os.environ["DIED"])
    if policy["weight_bits"] == json.loads(os.environ["DEADLY"]) and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Evaluation(sum(policy["weight_bits"].values()) / 1000, 10)


def test_only_what_a_worker_was_at_is_measured_alone(
    spec, store, policies, monkeypatch, tmp_path, caplog
):
    monkeypatch.setattr(measure, "evaluate_policy", deadly_once)
    monkeypatch.setenv("DIED", str(tmp_path / "died"))
    many = [
        replace(policies[0], weight_bits=dict.fromkeys(policies[0].weight_bits, bits))
        for bits in range(2, 14)
    ]
    monkeypatch.setenv("DEADLY", json.dumps(many[2].weight_bits))
    with LocalExecutor(1) as executor, bar(len(many), "measuring", "policy") as shown:
        found = Measurer(spec, store, executor, shown)(many)
        assert shown.n == len(many)
    assert (tmp_path / "died").exists()
    assert [evaluation.score for evaluation in found] == [bits(policy) for policy in many]
    assert 1 <= caplog.text.count("making it again, alone") <= 2
    assert len(store.rows()) == len(many)


def test_an_interrupt_that_ends_the_workers_is_no_reason_to_try_again(spec, store, policies):
    class Interrupted(LocalExecutor):
        def submit(self, function, /, *args, **kwargs):
            self.closed.set()
            future = Future()
            future.set_exception(BrokenProcessPool("killed"))
            return future

    with Interrupted(1) as executor, pytest.raises(WorkerError, match="a worker died"):
        Measurer(spec, store, executor)(policies[:1])


def test_store_that_fails_stops_the_measurements(spec, store, policies, asked, monkeypatch):
    def full(*_):
        raise ArtifactError("the disk is full")

    monkeypatch.setattr(store, "put", full)
    futures = []

    class Slow(Executor):
        def submit(self, function, item):
            futures.append(super().submit(function, item) if not futures else Future())
            return futures[-1]

    with pytest.raises(ArtifactError, match="the disk is full"):
        Measurer(spec, store, Slow())(policies)
    assert [future.cancelled() for future in futures] == [False, True, True, True]


def test_real_measurements_pass_through_the_store_unchanged(spec, store, policies):
    with ThreadPoolExecutor(1) as executor:
        first = Measurer(spec, store, executor)(policies[:1])
    assert first[0].score is not None
    assert Measurer(spec, store, Executor(capacity=0))(policies[:1]) == first


def test_divergences_are_kept_beside_the_scores(spec, store, policies, asked, monkeypatch):
    calls = []

    def diverge(job):
        calls.append(job)
        return Divergence(0.25, 7)

    monkeypatch.setattr(measure, "policy_divergence", diverge)
    measurer = Measurer(spec, store, Executor())
    measurer(policies)
    assert measurer.divergences(policies) == [Divergence(0.25, 7)] * len(policies)
    assert Measurer(spec, store, Executor(0)).divergences(policies) == [Divergence(0.25, 7)] * 4
    assert len(calls) == len(asked) == 4
