"""The durable, content-addressed store of measurements: key -> JSON record, in SQLite.

It lies outside all pipeline outputs, so that nothing measured is lost when a stage is killed or its
output is rebuilt. Keys are hashes of everything that decides a result; a record is never changed.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from seernet.errors import ArtifactError

LOCK_SECONDS = 10.0
PACKAGE = Path(__file__).parent
_SCHEMA = "CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, record TEXT NOT NULL)"


def default_root() -> Path:
    """Folder of the store: `$SEERNET_STORE`, or `.store` in the repository."""
    return Path(os.environ.get("SEERNET_STORE", ".store"))


class Store:
    """Records under their keys.

    Args:
        path: SQLite file; made if absent.

    Raises:
        ArtifactError: If the file is not a store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connect() as connection:
            connection.execute(_SCHEMA)

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The records that exist, by key."""
        found = {}
        with self._connect() as connection:
            for key in keys:
                row = connection.execute(
                    "SELECT record FROM records WHERE key = ?", (key,)
                ).fetchone()
                if row is not None:
                    found[key] = json.loads(row[0])
        return found

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Keep a record; it is on disk when this returns. An existing one stays."""
        with self._connect() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO records VALUES (?, ?)", (key, json.dumps(record))
            )

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other processes from measuring into the same store at the same time.

        Raises:
            ArtifactError: If another process measures, and does so for over ten seconds.
        """
        lock = FileLock(self.path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            raise ArtifactError(
                f"another process measures into {self.path}; wait for it, or end it (a stage that "
                "outlived its dvc, say), and run again."
            ) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self.path, timeout=60)
            try:
                connection.execute("PRAGMA synchronous=FULL")
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.DatabaseError as error:
            raise ArtifactError(
                f"the store {self.path} cannot be used ({error}); if its disk is full, make room; "
                "if it is damaged, move it away and run again."
            ) from error


def digest(value: Any) -> str:
    """SHA-256 of a JSON-like value, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def files_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a folder.

    Raises:
        ArtifactError: If there are none.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    if not files:
        raise ArtifactError(f"{folder} is missing or empty; run the stage that writes it.")
    total = hashlib.sha256()
    for path in files:
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def code_digest(parts: Iterable[str]) -> str:
    """SHA-256 of what packages of ours do: of their syntax trees without docstrings.

    Args:
        parts: Names of packages or modules inside `seernet`.
    """
    total = hashlib.sha256()
    for part in sorted(parts):
        folder = PACKAGE / part
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]
        for path in files:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                body = getattr(node, "body", None)
                if isinstance(body, list) and body and _is_docstring(body[0]):
                    body.pop(0)
            total.update(path.relative_to(PACKAGE).as_posix().encode())
            total.update(ast.dump(tree).encode())
    return total.hexdigest()


def _is_docstring(node: Any) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
