"""Check that a DVC remote holds every output whole, or repair it (`make check-remote`).

Not a stage. DVC finds a missing object when it is pulled, and a corrupted one where the remote is
set to `verify`, but then names neither the file nor the cause, and a later `dvc push` trusts what
it pushed before. This reads every object that `dvc.lock` asks for, and compares its MD5.

    python stages/remote.py [--repair] [REMOTE]
"""

import hashlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.tree import Tree

from seernet.errors import SeerNetError
from seernet.progress import bar

logger = logging.getLogger("remote")
BLOCK = 1 << 20
DIRECTORY = ".dir"


@dataclass(frozen=True)
class Damage:
    """An object that the remote does not hold as it should.

    Attributes:
        oid: Its name: the MD5 of its content.
        file: The file or folder of the working tree that it belongs to.
        cause: `missing` or `corrupted`.
        path: Where it lies, or should lie, on the remote.
    """

    oid: str
    file: str
    cause: str
    path: str


def main() -> None:
    """Name every damaged object; with `--repair`, upload what this clone has of them."""
    arguments = [one for one in sys.argv[1:] if one != "--repair"]
    repair = len(arguments) < len(sys.argv) - 1
    try:
        with Repo() as repo:
            remote = repo.cloud.get_remote_odb(*arguments)
            damaged = list(damages(repo, remote))
            if repair:
                damaged = [damage for damage in damaged if not repaired(repo, remote, damage)]
    except DvcException as error:
        raise SeerNetError(f"{error}; see `dvc remote list`.") from error
    for damage in damaged:
        logger.error("%s is %s: %s", damage.file, damage.cause, damage.path)
    if damaged:
        remedy = (
            "this clone does not have them: run `make check-remote REPAIR=1` in one that does, or "
            "`dvc repro` and then `make check-remote REPAIR=1`"
            if repair
            else "run `make check-remote REPAIR=1` in a clone that has them"
        )
        raise SeerNetError(f"{len(damaged)} objects of the remote are damaged; {remedy}.")


def damages(repo: Any, remote: Any) -> Iterator[Damage]:
    """Objects of all outputs that are not whole on the remote."""
    wanted = objects(repo, remote)
    with bar(len(wanted), "checking the remote", "object") as shown:
        for oid, file in wanted.items():
            path = remote.oid_to_path(oid)
            if not remote.fs.exists(path):
                yield Damage(oid, file, "missing", path)
            elif not whole(remote, oid):
                yield Damage(oid, file, "corrupted", path)
            shown.update()


def objects(repo: Any, remote: Any) -> dict[str, str]:
    """Every object that the outputs in `dvc.lock` consist of, and its file."""
    found: dict[str, str] = {}
    for output in repo.index.outs:
        if not output.use_cache or not output.hash_info:
            continue
        name, oid = str(output), output.hash_info.value
        found[oid] = name
        holders = [odb for odb in (repo.cache.local, remote) if whole(odb, oid)]
        if output.hash_info.isdir and holders:
            tree = Tree.load(holders[0], output.hash_info)
            found |= {entry.value: "/".join((name, *key)) for key, _, entry in tree}
    return found


def whole(odb: Any, oid: str) -> bool:
    """Whether an object is there and its content is what its name says."""
    path, digest = odb.oid_to_path(oid), hashlib.md5(usedforsecurity=False)
    if not odb.fs.exists(path):
        return False
    with odb.fs.open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest() == oid.removesuffix(DIRECTORY)


def repaired(repo: Any, remote: Any, damage: Damage) -> bool:
    """Upload an object anew, if this clone's cache has it."""
    local = repo.cache.local
    if not whole(local, damage.oid):
        return False
    if damage.cause == "corrupted":
        remote.fs.remove(damage.path)
    remote.fs.makedirs(remote.fs.parent(damage.path), exist_ok=True)
    remote.fs.put_file(local.oid_to_path(damage.oid), damage.path)
    logger.info("%s was %s, and is uploaded again", damage.file, damage.cause)
    return True


if __name__ == "__main__":
    from seernet.stage import run

    run(main)
