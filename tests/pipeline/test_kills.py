"""SIGKILL in every stage at random moments: run again, the pipeline ends as if never killed.

pytest -m slow tests/pipeline/test_kills.py -s
"""

import contextlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]

KILLS = 50
# Everything at once, as a machine that goes down does; the stage alone, as the kernel does where
# memory ran out; DVC alone, which leaves the stage running beside the next `dvc repro`.
VICTIMS = ("all", "stage", "dvc")


@dataclass
class Run:
    """One `dvc repro` in a process group of its own, and when it said what."""

    process: subprocess.Popen
    begun: dict = field(default_factory=dict)
    said: list = field(default_factory=list)
    moved: threading.Condition = field(default_factory=threading.Condition)
    ended: bool = False

    def __post_init__(self):
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            with self.moved:
                self.said.append(line)
                if found := re.search(r"Running stage '([^']+)'", line):
                    self.begun[found[1]] = time.monotonic()
                self.moved.notify_all()
        self.process.wait()
        with self.moved:
            self.ended = True
            self.moved.notify_all()

    def wait_for_a_stage(self, among):
        """The first stage of some that begins; None if the run ends without."""
        with self.moved:
            self.moved.wait_for(lambda: self.ended or among & set(self.begun))
            return next((stage for stage in self.begun if stage in among), None)

    def took(self):
        """How long each stage took that another one followed, DVC's own work included."""
        moments = itertools.pairwise(self.begun.values())
        return dict(zip(self.begun, (after - before for before, after in moments), strict=False))

    def ends_within(self, seconds):
        with self.moved:
            return self.moved.wait_for(lambda: self.ended, seconds)

    def wait(self):
        """All that it said."""
        with self.moved:
            self.moved.wait_for(lambda: self.ended)
        return "".join(self.said)

    def kill(self, victim):
        """Send SIGKILL; what was really hit, and the stage that was running or had just run."""
        stage = list(self.begun)[-1]
        scripts = list(stages_of(self.process.pid)) if victim == "stage" else []
        if victim == "dvc":
            self.process.kill()
        elif scripts:
            for process in scripts:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        else:  # also if the stage has ended, and DVC takes up what it wrote
            victim = "all"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        return victim, stage


def stages_of(group):
    """Processes of a group that run a stage's script, its workers left out."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().split(b"\0")
            ours = os.getpgid(int(entry.name)) == group
            if ours and len(command) > 1 and command[1].startswith(b"stages/"):
                yield int(entry.name)


def was_cut_off(workspace, run):
    """Whether a kill came while DVC wrote `dvc.lock`, which is then removed; else the run did well.

    DVC does not write it in one go, and refuses what it left. `make repro` says what to do.
    """
    output = run.wait()
    if run.process.returncode == 0:
        return False
    assert "./dvc.lock'" in output, output
    print("   dvc.lock was cut off; removing it", flush=True)
    (workspace.folder / "dvc.lock").unlink()
    return True


def stages_in(lock):
    return yaml.safe_load(lock)["stages"]


@pytest.fixture(scope="module")
def undisturbed(new_workspace, tmp_path_factory):
    """The stages of the lock of a run that nobody kills, and how long each took in it."""
    workspace = new_workspace(tmp_path_factory.mktemp("undisturbed") / "clone")
    run = Run(workspace.start("repro", start_new_session=True))
    output = run.wait()
    assert run.process.returncode == 0, output
    *_, last = run.begun
    last_took = time.monotonic() - run.begun[last]
    return stages_in(workspace.lock), run.took() | {last: last_took}


def test_fifty_kills_lead_to_the_same_lock(undisturbed, new_workspace, tmp_path):
    expected, seconds = undisturbed
    draw = random.Random(0)
    each = KILLS // len(seconds)
    killed = Counter()
    folders = (new_workspace(tmp_path / f"clone {number}") for number in range(KILLS))
    workspace = next(folders)
    while killed.total() < KILLS:
        # Each stage in turn, until it was hit often enough; what is left of the fifty, anywhere.
        wanted = {stage for stage in seconds if killed[stage] < each} or set(seconds)
        run = Run(workspace.start("repro", start_new_session=True))
        stage = run.wait_for_a_stage(wanted)
        if stage is None:
            if not was_cut_off(workspace, run):
                assert stages_in(workspace.lock) == expected
                workspace = next(folders)
            continue
        if run.ends_within(draw.uniform(0.0, seconds[stage])):
            continue  # too late; what it gave is looked at in the next round
        seconds.update(run.took())  # a machine may be busier at one time than at another
        victim, hit = run.kill(VICTIMS[killed.total() % len(VICTIMS)])
        killed[hit] += 1
        after = time.monotonic() - run.begun[hit]
        print(f"{killed.total():2} {hit}: {victim} killed after {after:.2f} s", flush=True)
        if victim == "dvc":
            run.process.wait()  # what it left running goes on, and holds the pipe
        else:
            run.wait()
    while was_cut_off(workspace, Run(workspace.start("repro", start_new_session=True))):
        pass
    assert stages_in(workspace.lock) == expected
    assert workspace.repro() == []
    assert set(killed) == set(expected)
    print(dict(killed))
