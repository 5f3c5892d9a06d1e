"""A clone of the pipeline with tiny parameters, in a git and DVC repository of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = Path(__file__).with_name("offline")
COPIED = (
    "stages",
    "src",
    "networks",
    "notebooks",
    "data/raw",
    "data/latency",
    "dvc.yaml",
    "requirements.lock",
)
COPIED += (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore")


class Workspace:
    """One clone; `repro` runs the pipeline and tells which stages ran."""

    def __init__(self, folder):
        self.folder = folder
        self.params = folder / "params.yaml"
        self.variables = {}  # of the environment, beside the usual ones
        self.connections = folder.with_name(f"{folder.name} connections")

    @classmethod
    def new(cls, folder, parameters="tiny.yaml", commit=True):
        """A clone in which nothing ran."""
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for name in COPIED:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=ignore)
            else:
                shutil.copy2(ROOT / name, folder / name)
        shutil.copy2(Path(__file__).with_name(parameters), folder / "params.yaml")
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        commands = [["init", "-q", "-b", "main"], ["add", "-A"]]
        commands += [[*identity, "commit", "-qm", "start"]] if commit else []
        for command in commands:
            subprocess.run(["git", *command], cwd=folder, check=True)
        return cls(folder)

    def copy(self, folder):
        """All of it once more, with what was noted of it."""
        other = Workspace(folder)
        shutil.copytree(self.folder, folder, symlinks=True)
        if self.connections.exists():
            shutil.copy2(self.connections, other.connections)
        return other

    @property
    def environment(self):
        binaries = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PATH": binaries + os.pathsep + os.environ["PATH"],
            "PYTHONPATH": f"{self.folder / 'src'}{os.pathsep}{OFFLINE}",
            "SEERNET_TEST_CONNECTIONS": str(self.connections),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.folder / ".dvc" / "site"),
            **self.variables,
        }

    def start(self, *arguments, **options):
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    def script(self, *arguments):
        """Run a script of the pipeline without DVC."""
        command = [sys.executable, *arguments]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True)

    def dvc(self, *arguments, expect=0):
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=1800)
        assert process.returncode == expect, output
        return output

    def repro(self, *arguments, expect=0):
        """Run the pipeline; the stages that really ran, in order."""
        output = self.dvc("repro", *arguments, expect=expect)
        return re.findall(r"Running stage '([^']+)'", output)

    def edit(self, old, new):
        text = self.params.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the parameters"
        self.params.write_text(text.replace(old, new), encoding="utf-8")

    @property
    def lock(self):
        return (self.folder / "dvc.lock").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def new_workspace():
    """Makes workspaces with parameters of their own."""
    return Workspace.new


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A workspace in which everything ran once; tests that change it restore it.

    It runs in one of the tests' processes; each works in a copy of its own.
    """
    ours = tmp_path_factory.mktemp("pipeline")
    shared = ours.parent.parent if "PYTEST_XDIST_WORKER" in os.environ else ours
    original = shared / "a clone with späces"
    ran = shared / "ran.json"
    with FileLock(shared / "ran.lock"):
        if not ran.exists():
            shutil.rmtree(original, ignore_errors=True)  # of a run that failed
            ran.write_text(json.dumps(Workspace.new(original).repro()))
    workspace = Workspace(original).copy(ours / "a cöpy")
    workspace.first_run = json.loads(ran.read_text())
    workspace.first_lock = workspace.lock
    return workspace


@pytest.fixture
def fresh(tmp_path):
    return Workspace.new(tmp_path / "fresh")
