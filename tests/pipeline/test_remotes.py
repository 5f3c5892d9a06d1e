"""Results are shared for real: over a folder, S3 and SSH, all of them on this machine."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.pipeline

HOST = "127.0.0.1"
SECRETS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
ONE_BUDGET = {"optimize@low", "finetune@low", "export@low", "baseline@low", "collect", "report"}


def free_port():
    with socket.socket() as one:
        one.bind((HOST, 0))
        return one.getsockname()[1]


def wait_for(port):
    for _ in range(300):
        with socket.socket() as one:
            if one.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A remote that is a folder, as on a network drive."""
    return {"url": str(tmp_path_factory.mktemp("remote") / "a drive")}


@pytest.fixture(scope="module")
def s3():
    """A server that speaks S3, with a bucket."""
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)])
    try:
        wait_for(port)
        import boto3

        address = f"http://{HOST}:{port}"
        keys = dict(
            zip(("aws_access_key_id", "aws_secret_access_key"), SECRETS.values(), strict=True)
        )
        client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="shared")
        yield {"url": "s3://shared/results", "endpointurl": address}
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def ssh(tmp_path_factory):
    """A server that speaks SSH and SFTP, which lets one user in."""
    import asyncssh

    class OneUser(asyncssh.SSHServer):
        def begin_auth(self, username):
            return True

        def password_auth_supported(self):
            return True

        def validate_password(self, username, password):
            return (username, password) == ("ann", "secret")

    port, home = free_port(), tmp_path_factory.mktemp("home")
    loop, started = asyncio.new_event_loop(), threading.Event()

    async def serve():
        await asyncssh.create_server(
            OneUser,
            HOST,
            port,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(home)),
        )
        started.set()

    loop.create_task(serve())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    assert started.wait(10)
    yield {"url": f"ssh://ann@{HOST}:{port}/results", "password": "secret"}
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


class Clone:
    """A clone of a repository in which the whole pipeline has run."""

    def __init__(self, workspace, folder, home):
        self.folder, self.home = folder, home
        self._environment = {
            **workspace.environment,
            **SECRETS,
            "AWS_DEFAULT_REGION": "us-east-1",
            "HOME": str(home),
            "PYTHONPATH": os.pathsep.join([str(folder / "src"), os.environ.get("PYTHONPATH", "")]),
            "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "site"),
        }
        self._environment.pop("SEERNET_STORE", None)

    def run(self, *command, expect=0):
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment, text=True, timeout=900, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode in (expect if isinstance(expect, tuple) else (expect,)), done.stdout
        return done.stdout

    def dvc(self, *arguments, expect=0):
        return self.run(sys.executable, "-m", "dvc", *arguments, expect=expect)

    def git(self, *arguments):
        return self.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments)

    def add_remote(self, remote):
        """As the README says: what others share is committed, secrets and addresses are not."""
        self.dvc("remote", "add", "-d", "shared", remote["url"])
        self.dvc("remote", "modify", "shared", "verify", "true")
        self.add_secrets(remote)
        self.git("commit", "-qam", "remote")

    def add_secrets(self, remote):
        for key in sorted(set(remote) - {"url"}):
            self.dvc("remote", "modify", "--local", "shared", key, remote[key])

    def check_remote(self, *options, expect=0):
        return self.run(sys.executable, "stages/remote.py", *options, expect=expect)

    def not_pushed(self):
        output = self.dvc("data", "status", "--not-in-remote", "--granular", "--json")
        return json.loads(output.strip().splitlines()[-1]).get("not_in_remote", [])

    def again(self, folder):
        """A fresh clone of this clone: another person's."""
        subprocess.run(["git", "clone", "-q", str(self.folder), str(folder)], check=True)
        other = Clone.__new__(Clone)
        other.folder, other.home = folder, self.home
        other._environment = {
            **self._environment,
            "PYTHONPATH": self._environment["PYTHONPATH"].replace(
                str(self.folder / "src"), str(folder / "src")
            ),
            "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "site"),
        }
        return other


@pytest.fixture(scope="module")
def publish(finished, tmp_path_factory):
    """A copy of the finished workspace, all of it committed, that has a remote."""

    def make(remote):
        base = tmp_path_factory.mktemp("share")
        remote = {
            **remote,
            "url": f"{remote['url']}/{base.name}",
        }  # tests share a server, not a folder
        shutil.copytree(finished.folder, base / "ours", ignore=shutil.ignore_patterns(".store"))
        ours = Clone(finished, base / "ours", base)
        ours.git("add", "-A")
        ours.git("commit", "-qm", "results")
        ours.add_remote(remote)
        return ours

    return make


@pytest.mark.parametrize("kind", ["folder", "s3", "ssh"])
def test_what_one_clone_pushes_another_pulls(kind, publish, request, tmp_path):
    remote = request.getfixturevalue(kind)
    ours = publish(remote)
    assert "models/baseline/model.safetensors" in ours.not_pushed()
    ours.dvc("push")
    assert ours.not_pushed() == []
    theirs = ours.again(tmp_path / "theirs")
    theirs.add_secrets(remote)
    assert theirs.not_pushed() == []
    theirs.dvc("pull")
    weights = "models/finetuned/low/seed-0.safetensors"
    assert (theirs.folder / weights).read_bytes() == (ours.folder / weights).read_bytes()
    assert "Running stage" not in theirs.dvc("repro")
    theirs.check_remote()


def test_a_budget_that_is_changed_in_a_pulled_clone_runs_only_its_stages(
    publish, tmp_path_factory, tmp_path
):
    ours = publish({"url": str(tmp_path_factory.mktemp("remote"))})
    ours.dvc("push")
    theirs = ours.again(tmp_path / "theirs")
    theirs.dvc("pull")
    params = theirs.folder / "params.yaml"
    text = params.read_text(encoding="utf-8")
    assert text.count("bops_ratio: 0.010\n") == 1
    params.write_text(text.replace("bops_ratio: 0.010\n", "bops_ratio: 0.011\n"), encoding="utf-8")
    output = theirs.dvc("repro")
    ran = {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}
    assert ran == ONE_BUDGET


@pytest.mark.parametrize(
    ("kind", "harm"),
    [("folder", "missing"), ("folder", "corrupted"), ("s3", "corrupted"), ("ssh", "missing")],
)
def test_a_damaged_object_is_found_named_and_repaired(kind, harm, publish, request, tmp_path):
    ours = publish(request.getfixturevalue(kind))
    ours.dvc("push")
    damage(ours, harm, "models/baseline/model.safetensors")
    theirs = ours.again(tmp_path / "theirs")
    theirs.add_secrets(request.getfixturevalue(kind))
    theirs.dvc("pull", expect=(1, 255))
    output = theirs.check_remote(expect=1)
    assert f"models/baseline/model.safetensors is {harm}" in output
    assert "REPAIR=1" in output and "Traceback" not in output
    output = theirs.check_remote("--repair", expect=1)
    assert "this clone does not have them" in output
    assert f"was {harm}, and is uploaded again" in ours.check_remote("--repair")
    ours.check_remote()
    theirs.dvc("pull")


def damage(clone, harm, file):
    """Remove or change one object on a clone's remote, through DVC's own file system."""
    script = f"""
from dvc.repo import Repo
from dvc_data.hashfile.tree import Tree
with Repo() as repo:
    remote = repo.cloud.get_remote_odb()
    (output,) = [o for o in repo.index.outs if str(o) == {str(Path(file).parent)!r}]
    tree = Tree.load(remote, output.hash_info)
    (oid,) = [entry.value for key, _, entry in tree if key == ({Path(file).name!r},)]
    path = remote.oid_to_path(oid)
    remote.fs.remove(path)
    if {harm!r} == "corrupted":
        with remote.fs.open(path, "wb") as opened:
            opened.write(b"not what it was")
"""
    clone.run(sys.executable, "-c", script)
