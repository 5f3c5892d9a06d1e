"""A stage ends with a clear status and one row of timings, whatever happens in it."""

import csv
import errno
import logging
import sys

import numpy as np
import pytest

from seernet.errors import ConfigError
from seernet.stage import run


@pytest.fixture(autouse=True)
def stage_folder(tmp_path, monkeypatch):
    """An empty working folder, and a script called with one argument."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").touch()
    monkeypatch.setattr(sys, "argv", ["stages/optimize.py", "small"])
    return tmp_path


def rows(folder):
    with (folder / "results/timings.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def raising(error):
    def main():
        raise error

    return main


def test_each_run_appends_one_row_under_one_header(stage_folder):
    run(lambda: None)
    run(lambda: None)
    first, second = rows(stage_folder)
    assert (first["stage"], first["arguments"], first["status"]) == ("optimize", "small", "0")
    assert first["start_utc"].endswith("+00:00")
    assert float(second["seconds"]) >= 0.0


def test_process_that_does_not_lead_appends_no_row(stage_folder, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    run(lambda: None)
    assert not (stage_folder / "results").exists()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError("a must be 1, got 2; set a."), 1, "a must be 1, got 2; set a."),
        (KeyboardInterrupt(), 130, "finished measurements are kept"),
        (OSError(errno.ENOSPC, "No space left on device", "x.bin"), 1, "x.bin"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "y.bin"), 1, "cannot be written"),
        (RuntimeError("I/O error: Permission denied (os error 13)"), 1, "cannot be written"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "z"), 1, "cannot be written"),
        (MemoryError(), 1, "memory ran out (MemoryError); run with fewer processes"),
        (RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB"), 1, "memory. Tried"),
    ],
)
def test_expected_end_is_one_line_and_a_status(stage_folder, caplog, error, status, said):
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit) as stop:
        run(raising(error))
    assert stop.value.code == status
    (record,) = caplog.records
    assert said in record.getMessage()
    assert record.exc_info is None
    assert rows(stage_folder)[0]["status"] == str(status)


def test_full_disk_is_found_behind_another_error():
    def main():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("cannot write") from error

    with pytest.raises(SystemExit) as stop:
        run(main)
    assert stop.value.code == 1


def test_array_beyond_all_memory_is_refused_in_one_line(caplog):
    with pytest.raises(SystemExit) as stop:
        run(lambda: np.empty((10**9, 3, 4096, 4096), np.uint8))
    assert stop.value.code == 1
    assert "memory ran out (Unable to allocate 44.7 PiB" in caplog.text


def test_defect_keeps_its_traceback_and_is_recorded(stage_folder):
    with pytest.raises(ZeroDivisionError):
        run(lambda: print(1 / 0))
    assert rows(stage_folder)[0]["status"] == "1"


@pytest.mark.parametrize(("code", "status"), [(2, "2"), (None, "0"), ("usage", "1")])
def test_exit_of_the_stage_passes_through(stage_folder, code, status):
    with pytest.raises(SystemExit) as stop:
        run(raising(SystemExit(code)))
    assert stop.value.code == code
    assert rows(stage_folder)[0]["status"] == status


def test_unwritable_timings_do_not_fail_the_stage(stage_folder):
    (stage_folder / "results").write_text("a file where the folder should be")
    run(lambda: None)


def test_nothing_is_left_in_a_folder_that_holds_no_pipeline(tmp_path):
    (tmp_path / "params.yaml").unlink()
    run(lambda: None)
    assert list(tmp_path.iterdir()) == []
