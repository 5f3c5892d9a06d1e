"""Training curves: equal runs write equal files, interrupted or not."""

import csv
import logging
import subprocess
import sys

import pytest

from seernet.curves import Curves

ROWS = [{"epoch": n, "loss": 1 / n, "score": 0.1 * n} for n in (1, 2, 3)]


@pytest.fixture(autouse=True)
def outside_any_repository(tmp_path, monkeypatch):
    """DVCLive looks for a repository from the working folder upwards."""
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("dvclive")


def files(folder):
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def write(folder, rows=ROWS):
    with Curves(folder) as curves:
        for row in rows:
            curves.log(row)
    return files(folder)


def test_curve_is_a_table_with_one_step_an_epoch(tmp_path):
    write(tmp_path / "a")
    with (tmp_path / "a/plots/metrics/loss.tsv").open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file, delimiter="\t"))
    assert table == [["step", "loss"], ["1", "1.0"], ["2", "0.5"], ["3", str(1 / 3)]]


def test_equal_runs_write_equal_files_and_leave_nothing_of_an_older_one(tmp_path):
    expected = write(tmp_path / "a")
    assert set(expected) == {"metrics.json", "plots/metrics/loss.tsv", "plots/metrics/score.tsv"}
    write(tmp_path / "b", [{"epoch": 1, "other": 5.0}])
    assert write(tmp_path / "b") == expected


def test_resumed_run_writes_what_an_uninterrupted_one_does(tmp_path):
    expected = write(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt), Curves(tmp_path / "cut") as curves:
        curves.log(ROWS[0])
        raise KeyboardInterrupt
    assert files(tmp_path / "cut") != expected
    assert write(tmp_path / "cut") == expected  # a resumed fit reports its first epochs again


def test_each_seed_has_curves_of_its_own(tmp_path):
    with Curves(tmp_path / "a") as curves:
        for seed in (0, 7):
            for row in ROWS:
                curves.log_seed(seed, row)
    assert {name for name in files(tmp_path / "a") if name.endswith(".tsv")} == {
        f"plots/metrics/seed_{seed}/{name}.tsv" for seed in (0, 7) for name in ("loss", "score")
    }
    lines = (tmp_path / "a/plots/metrics/seed_7/score.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["step", "1", "2", "3"]


def test_run_without_epochs_leaves_the_folder_that_dvc_expects(tmp_path):
    write(tmp_path / "a")
    Curves(tmp_path / "a").close()
    assert (tmp_path / "a/plots/metrics").is_dir()
    assert [name for name in files(tmp_path / "a") if name.startswith("plots/")] == []


def test_missing_dvclive_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "dvclive", None)
    with caplog.at_level(logging.WARNING):
        assert write(tmp_path / "a") == {}
    assert (tmp_path / "a/plots/metrics").is_dir()
    assert "dvclive is not installed" in caplog.text


def test_repository_without_commits_is_a_warning(tmp_path, caplog):
    pytest.importorskip("dvc")
    from dvc.repo import Repo

    subprocess.run(["git", "init", "-q", "."], check=True)
    Repo.init().close()
    with caplog.at_level(logging.WARNING):
        assert write(tmp_path / "a") == {}
    assert (tmp_path / "a/plots/metrics").is_dir()
    assert "make a first commit" in caplog.text
