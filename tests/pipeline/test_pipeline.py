"""The whole pipeline, for real, on a tiny problem: what runs again, and what survives."""

import hashlib
import itertools
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.pipeline

ALL = {"prepare", "pretrain", "sample", "fit", "latency", "front", "collect", "report"}
EACH = ("optimize", "finetune", "export", "baseline")
ALL |= {f"{stage}@{b}" for stage in EACH for b in ("low", "high")}


COLUMNS = ["budget", "method", "seed", "cost_bops", "bops_ratio", "macs", "parameters"]
COLUMNS += ["size_bytes", "predicted_score", "search_score", "test_score", "baseline_score"]


def table(workspace):
    return pd.read_csv(workspace.folder / "results/tradeoff.csv")


def measured(workspace):
    """How many policies the store knows; single places, which come first, do not count."""
    store = workspace.folder / ".store" / "evaluations.sqlite"
    if not store.exists():
        return 0
    with sqlite3.connect(store) as connection:
        query = "SELECT COUNT(*) FROM records WHERE json_type(record, '$.score') IS NOT NULL"
        return connection.execute(query).fetchone()[0]


def made_now(output):
    """How many measurements the sample stage says it had to make."""
    reused, total = re.search(r"(\d+) of (\d+) measurements were made before", output).groups()
    return int(total) - int(reused)


def test_first_run_runs_every_stage_and_writes_the_contract(finished):
    assert set(finished.first_run) == ALL
    rows = table(finished)
    assert list(rows.columns) == COLUMNS
    assert set(rows["budget"]) == {"low", "high"}
    assert set(rows["method"]) == {"seernet", "uniform", "random"}
    limit = rows["budget"].map({"low": 0.010, "high": 0.03})
    assert (rows["bops_ratio"] <= limit).all()
    evaluations = pd.read_csv(finished.folder / "data/evaluations/evaluations.csv")
    origins = evaluations["origin"].value_counts().to_dict()
    assert origins == {"random": 8, "initial": 6, "active": 2}
    for path in (
        "results/figures/tradeoff.png",
        "results/notebooks/1_tradeoff.ipynb",
        "results/report/index.html",
        "models/finetuned/low/seed-0.safetensors",
        "models/policies/high.json",
        "results/metrics/baseline/low.json",
        "results/metrics/export/low.json",
        "models/exported/low/model.onnx",
        "models/exported/low/model.safetensors",
        "models/exported/high/model.json",
    ):
        assert (finished.folder / path).stat().st_size > 0


def test_no_stage_reaches_beyond_this_machine(finished):
    assert not finished.connections.exists()
    reach = "import socket; socket.create_connection(('192.0.2.1', 443), timeout=1)"
    with pytest.raises(subprocess.CalledProcessError):
        finished.script("-c", reach)
    assert finished.connections.read_text("utf-8") == "socket.getaddrinfo 192.0.2.1: -c\n"
    finished.connections.unlink()


def test_second_run_runs_nothing(finished):
    assert finished.repro() == []


def test_a_clock_that_went_wrong_runs_nothing(finished):
    """What has changed is told by contents; files may be of any time, past or to come."""
    files = sorted(finished.folder.glob("[dmr]*/*/*"))
    before = [path.stat() for path in files]
    try:
        for path, moment in zip(files, itertools.cycle((1, 2**32)), strict=False):
            os.utime(path, (moment, moment))
        assert finished.repro() == []
    finally:  # git's index, which later tests write, cannot hold such times
        for path, was in zip(files, before, strict=True):
            os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


def test_reordered_budgets_and_other_spellings_run_nothing(finished):
    ours = "  low:\n    bops_ratio: 0.010\n  high:\n    bops_ratio: 0.03\n"
    other = "  high:\n    bops_ratio: 3e-2\n  low:\n    bops_ratio: 0.01\n"
    finished.edit(ours, other)
    assert finished.repro() == []
    finished.edit(other, ours)


def test_a_new_budget_runs_only_its_own_stages_and_leaves_without_trace(finished):
    finished.edit("  low:\n", "  middle:\n    bops_ratio: 0.02\n  low:\n")
    ran = finished.repro()
    assert set(ran) == {
        "optimize@middle", "finetune@middle", "baseline@middle", "export@middle",
        "collect", "report",
    }  # fmt: skip
    assert "middle" in set(table(finished)["budget"])
    finished.edit("  middle:\n    bops_ratio: 0.02\n", "")
    assert set(finished.repro()) == {"collect", "report"}
    assert set(table(finished)["budget"]) == {"low", "high"}
    assert "middle" not in (finished.folder / "results/report/index.html").read_text("utf-8")
    finished.script("stages/prune.py")
    assert not [p for p in finished.folder.glob("[mr]*/**/middle*") if p.name != ".gitignore"]
    assert finished.repro() == ["collect"]  # its folder has a file less; DVC restores the report
    lock, first = (yaml.safe_load(text) for text in (finished.lock, finished.first_lock))
    assert lock == first


def test_a_finetuning_parameter_runs_nothing_before_finetuning(finished):
    finished.edit("  epochs: 1\n", "  epochs: 2\n")
    changed = {"finetune@low", "finetune@high", "baseline@low", "baseline@high", "report"}
    assert set(re.findall(r"Running stage '([^']+)'", finished.dvc("repro", "--dry"))) == changed
    assert finished.repro("export@low") == ["finetune@low", "export@low"]
    finished.edit("  epochs: 2\n", "  epochs: 1\n")
    assert finished.repro() == []


def test_more_measurements_make_only_the_new_ones(finished):
    before = measured(finished)
    old = pd.read_csv(finished.folder / "data/evaluations/evaluations.csv")
    finished.edit("  evaluations: 8\n", "  evaluations: 10\n")
    output = finished.dvc("repro", "sample")
    made = measured(finished) - before
    assert 0 < made <= 4  # two active ones, two random ones; uniform ones may be known already
    assert made_now(output) == made
    new = pd.read_csv(finished.folder / "data/evaluations/evaluations.csv")
    for origins in (["initial", "active"], ["random"]):
        first = old[old["origin"].isin(origins)].reset_index(drop=True)
        again = new[new["origin"].isin(origins)].reset_index(drop=True)
        pd.testing.assert_frame_equal(again.head(len(first)), first)
    finished.edit("  evaluations: 10\n", "  evaluations: 8\n")
    finished.repro()


def test_an_infeasible_budget_fails_at_once_and_names_the_cheapest_cost(finished):
    finished.edit("bops_ratio: 0.03", "bops_ratio: 0.0001")
    output = finished.dvc("repro", expect=255)
    assert "budget `high`" in output
    assert "cheapest policy this search space allows" in output
    assert "Traceback" not in output
    finished.edit("bops_ratio: 0.0001", "bops_ratio: 0.03")
    assert finished.repro() == []


def test_metrics_and_plots_are_shown(finished):
    assert "kendall_tau" in finished.dvc("metrics", "show")
    assert "index.html" in finished.dvc("plots", "show")


def test_killed_run_and_budgets_side_by_side_give_the_same_lock_and_a_failure_loses_nothing(
    finished, fresh
):
    """Nothing measured is lost, and the outcome is that of a run never interrupted.

    Nor does it depend on locale and time zone: this run writes ASCII unless told, on another day.
    """
    fresh.variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "TZ": "UTC-14"}
    process = fresh.start("repro", start_new_session=True)
    deadline = time.monotonic() + 300
    while measured(fresh) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = measured(fresh)
    assert 3 <= kept < 16
    output = fresh.dvc("repro", "sample")
    assert made_now(output) == measured(fresh) - kept
    fresh.repro("latency", "front")
    before = {"prepare", "pretrain", "latency", "sample", "fit", "front"}

    def side_by_side():
        command = [sys.executable, "stages/parallel.py", "3"]
        return subprocess.run(
            command, cwd=fresh.folder, env=fresh.environment, capture_output=True, text=True
        )

    clone = hashlib.sha256(os.fsencode(fresh.folder.resolve())).hexdigest()[:8]
    obstacle = fresh.folder / f".store/progress/finetune-low-{clone}"
    obstacle.parent.mkdir(exist_ok=True)
    obstacle.write_text("not a folder")
    ended = side_by_side()
    assert ended.returncode == 1
    assert "error: finetune@low failed, for the reason above" in ended.stderr
    assert "a file or folder cannot be written" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    missing = {"finetune@low", "export@low", "collect", "report"}
    ran = set(re.findall(r"Running stage '([^']+)'", ended.stdout))
    assert ran - missing == ALL - before - missing
    ours, first = (yaml.safe_load(lock)["stages"] for lock in (fresh.lock, finished.first_lock))
    assert ours == {name: entry for name, entry in first.items() if name not in missing}

    obstacle.unlink()
    ended = side_by_side()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    ran = re.findall(r"Running stage '([^']+)'", ended.stdout)
    assert sorted(ran) == sorted(missing)
    ours = yaml.safe_load(fresh.lock)["stages"]
    assert set(ours) == ALL
    assert ours == first
    assert fresh.repro() == []


def test_of_two_runs_at_once_one_works_and_the_other_says_who_is_in_the_way(finished):
    finished.edit("  front_points: 5\n", "  front_points: 6\n")
    runs = [finished.start("repro", "front") for _ in range(2)]
    outputs = [run.communicate(timeout=600)[0] for run in runs]
    for run, output in zip(runs, outputs, strict=True):
        refused = re.search(r"is busy, it is being blocked by|Unable to acquire lock", output)
        assert (run.returncode != 0) == bool(refused), output
    assert 0 in [run.returncode for run in runs], outputs
    assert "".join(outputs).count("Running stage 'front'") >= 1
    assert finished.repro("front") == []
    finished.edit("  front_points: 6\n", "  front_points: 5\n")
    finished.repro()
    lock, first = (yaml.safe_load(text) for text in (finished.lock, finished.first_lock))
    assert lock == first
