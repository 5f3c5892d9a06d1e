"""The durable, content-addressed store of measurements: key -> JSON record, in SQLite.

It lies outside all pipeline outputs, so that nothing measured is lost when a stage is killed or its
output is rebuilt. Keys are hashes of everything that decides a result; a record is never changed.

Where a record comes from stands in tables beside, so that older versions read and write the same
file: records of theirs have no context, until a run reuses them.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from seernet.errors import ArtifactError

LOCK_SECONDS = 10.0
PACKAGE = Path(__file__).parent
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, record TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS contexts (context TEXT PRIMARY KEY, description TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS origins "
    "(key TEXT PRIMARY KEY, context TEXT NOT NULL, made_utc TEXT)",
)
_ORPHANS = (
    "DELETE FROM origins WHERE key NOT IN (SELECT key FROM records)",
    "DELETE FROM contexts WHERE context NOT IN (SELECT context FROM origins)",
)


@dataclass(frozen=True)
class Context:
    """What records have in common: all that decides them beside the policy.

    Attributes:
        digest: Its hash; records can be reused where it is the same.
        description: JSON-like, for people.
    """

    digest: str
    description: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A record as it lies in the store.

    Attributes:
        key: Its key.
        text: The record, in JSON unless it is damaged.
        context: Digest of its context; None if it was put without one.
        made: When it was put, UTC in ISO format; None if that is not known.
    """

    key: str
    text: str
    context: str | None
    made: str | None


def default_root() -> Path:
    """Folder of the store: `$SEERNET_STORE`, or `.store` in the repository."""
    return Path(os.environ.get("SEERNET_STORE") or ".store")


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
            for statement in _SCHEMA:
                connection.execute(statement)

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

    def put(self, key: str, record: dict[str, Any], context: Context | None = None) -> None:
        """Keep a record; it is on disk when this returns. An existing one stays."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._connect() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO records VALUES (?, ?)", (key, json.dumps(record))
            )
            if context is not None:
                _note(connection, [key], context, now)

    def claim(self, keys: Iterable[str], context: Context) -> None:
        """Note the context of records that have none, since they turned out to be of it."""
        with self._connect() as connection:
            _note(connection, keys, context, None)

    def rows(self) -> list[Row]:
        """All records, as they lie there, in the order of their keys."""
        query = (
            "SELECT key, record, context, made_utc FROM records LEFT JOIN origins USING (key) "
            "ORDER BY key"
        )
        with self._connect() as connection:
            return [Row(*row) for row in connection.execute(query)]

    def contexts(self) -> dict[str, dict[str, Any]]:
        """The descriptions of all contexts, by digest."""
        with self._connect() as connection:
            found = connection.execute("SELECT context, description FROM contexts").fetchall()
        return {digest: json.loads(text) for digest, text in found}

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file; nothing if it is whole."""
        with self._connect() as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def remove(self, contexts: Iterable[str]) -> int:
        """Remove the records of some contexts, for good; returns how many."""
        with self._connect() as connection:
            count = sum(
                connection.execute(
                    "DELETE FROM records WHERE key IN (SELECT key FROM origins WHERE context = ?)",
                    (context,),
                ).rowcount
                for context in contexts
            )
            for statement in _ORPHANS:
                connection.execute(statement)
        return count

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep others from sampling into the same store, or pruning it, at the same time.

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
            if "locked" in str(error):
                raise ArtifactError(
                    f"another process keeps the store {self.path} locked ({error}); wait for it, "
                    "or end it, and run again."
                ) from error
            raise ArtifactError(
                f"the store {self.path} cannot be used ({error}); if its disk is full, make room; "
                "if it is damaged, save what can be read (`sqlite3 FILE .recover`), or move it "
                "away, and run again."
            ) from error


def _note(
    connection: sqlite3.Connection, keys: Iterable[str], context: Context, made: str | None
) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO contexts VALUES (?, ?)",
        (context.digest, json.dumps(context.description)),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO origins VALUES (?, ?, ?)",
        [(key, context.digest, made) for key in keys],
    )


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
            total.update(ast.unparse(tree).encode())  # `dump` differs between versions
    return total.hexdigest()


def _is_docstring(node: Any) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
