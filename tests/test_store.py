"""The store keeps what it was given, whoever writes and whatever is killed."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime

import pytest

from seernet import store
from seernet.errors import ArtifactError
from seernet.store import Context, Store, code_digest, default_root, digest, files_digest


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "evaluations.sqlite"


def test_records_come_back_as_they_were_put(path):
    record = {"score": 0.1 + 0.2, "train_macs": 2**60, "error": "", "none": None}
    Store(path).put("a", record)
    assert Store(path).get(["missing", "a"]) == {"a": record}


def test_first_record_wins(path):
    opened = Store(path)
    opened.put("a", {"score": 1.0})
    opened.put("a", {"score": 2.0})
    assert opened.get(["a"]) == {"a": {"score": 1.0}}


@pytest.mark.parametrize("content", [b"not a database, but longer than its header" * 40, b"{}"])
def test_damaged_file_is_an_error_with_a_remedy(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"cannot be used .* move it away, and run again"):
        Store(path)


def test_store_that_is_damaged_later_is_an_error(path):
    opened = Store(path)
    path.write_bytes(path.read_bytes()[:100] + b"x" * 4000)
    with pytest.raises(ArtifactError, match="cannot be used"):
        opened.get(["a"])
    with pytest.raises(ArtifactError, match="cannot be used"):
        opened.put("a", {})


def hold(path, acquired, release):
    with Store(path).exclusive():
        acquired.set()
        release.wait(60)


def test_exclusive_refuses_a_second_process_until_the_first_is_gone(path, monkeypatch):
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.1)
    context = multiprocessing.get_context("spawn")
    acquired, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(path, acquired, release))
    process.start()
    try:
        assert acquired.wait(60)
        with pytest.raises(ArtifactError, match="another process measures into"):
            Store(path).exclusive().__enter__()
        Store(path).put("a", {})  # single records may still be put
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    with Store(path).exclusive():
        pass


WRITER = """
import sys
from pathlib import Path
from seernet.store import Store
store = Store(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    store.put(f"{sys.argv[2]}{number}", {"score": number})
    store.put(f"common{number}", {"writer": sys.argv[2]})
    print(number, flush=True)
"""


def writer(path, name, count):
    command = [sys.executable, "-c", WRITER, path, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_at_once(path):
    processes = [writer(path, name, 30) for name in "ab"]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    keys = [f"{name}{number}" for name in ("a", "b", "common") for number in range(30)]
    assert list(Store(path).get(keys)) == keys


def test_killed_writer_loses_nothing_that_was_put(path):
    with writer(path, "a", 100_000) as process:
        for line in process.stdout:
            if line == "20\n":
                process.kill()
                break
    found = Store(path).get([f"a{number}" for number in range(21)])
    assert [record["score"] for record in found.values()] == list(range(21))


def test_root_follows_the_environment(monkeypatch):
    monkeypatch.delenv("SEERNET_STORE", raising=False)
    assert str(default_root()) == ".store"
    monkeypatch.setenv("SEERNET_STORE", "/elsewhere")
    assert str(default_root()) == "/elsewhere"
    monkeypatch.setenv("SEERNET_STORE", "")
    assert str(default_root()) == ".store"


def test_digest_knows_values_but_not_the_order_of_keys():
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1})
    assert len({digest(value) for value in ([1, 2], [2, 1], {"a": 1}, "a", 0.1, None)}) == 6


def test_files_digest_sees_names_and_contents(tmp_path):
    def made(folder, **files):
        for name, text in files.items():
            file = tmp_path / folder / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return files_digest(tmp_path / folder)

    one = made("one", a="1", sub__b="2")
    assert made("two", sub__b="2", a="1") == one
    assert made("renamed", c="1", sub__b="2") != one
    assert made("changed", a="1", sub__b="3") != one
    assert made("swapped", a="2", sub__b="1") != one
    (tmp_path / "one" / ".gitignore").write_text("/a")
    assert files_digest(tmp_path / "one") == one


def test_files_digest_of_nothing_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match="missing or empty; run the stage that writes it"):
        files_digest(tmp_path / "absent")


def test_code_digest_ignores_words_but_sees_code(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PACKAGE", tmp_path)

    def of(source):
        (tmp_path / "part").mkdir(exist_ok=True)
        (tmp_path / "part" / "module.py").write_text(source)
        return code_digest(["part"])

    plain = of("def f(x):\n    return x + 1\n")
    assert (
        of('"""Module."""\n\n\ndef f(x):\n    """Say."""\n    # why\n    return (x + 1)') == plain
    )
    assert of("def f(x):\n    return x + 2\n") != plain
    assert of("def f(x, y=0):\n    return x + 1\n") != plain
    assert of('def f(x):\n    g("a")\n') != of('def f(x):\n    g("b")\n')


def test_code_digest_takes_packages_modules_and_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PACKAGE", tmp_path)
    (tmp_path / "a").mkdir()
    for name in ("a/one.py", "a/two.py", "b.py"):
        (tmp_path / name).write_text("x = 1\n")
    everything = code_digest(["a", "b"])
    assert code_digest(["b", "a"]) == everything
    assert len({everything, code_digest(["a"]), code_digest(["b"]), code_digest(["a/one"])}) == 4
    (tmp_path / "a/two.py").rename(tmp_path / "a/three.py")
    assert code_digest(["a", "b"]) != everything


# --- where records come from ---

ONE, OTHER = Context("1" * 64, {"model": "a"}), Context("2" * 64, {"model": "b"})


def test_records_know_their_context_and_their_time(path):
    opened = Store(path)
    opened.put("a", {"score": 0.5}, ONE)
    opened.put("b", {"score": 0.5})
    a, b = opened.rows()
    assert (a.key, a.text, a.context) == ("a", '{"score": 0.5}', ONE.digest)
    assert datetime.fromisoformat(a.made).tzinfo is not None
    assert (b.context, b.made) == (None, None)
    assert opened.contexts() == {ONE.digest: {"model": "a"}}


def test_reused_records_get_a_context_but_keep_the_one_they_have(path):
    opened = Store(path)
    opened.put("a", {})
    opened.put("b", {}, ONE)
    opened.claim(["a", "b"], OTHER)
    assert [row.context for row in opened.rows()] == [OTHER.digest, ONE.digest]
    assert opened.rows()[0].made is None


def test_store_of_an_older_version_works_both_ways(path):
    path.parent.mkdir()
    old = "CREATE TABLE records (key TEXT PRIMARY KEY, record TEXT NOT NULL)"
    insert = "INSERT OR IGNORE INTO records VALUES (?, ?)"  # as the older version puts
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(old)
        connection.execute(insert, ("a", '{"score": 0.25}'))
    opened = Store(path)
    opened.put("b", {"score": 0.5}, ONE)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(insert, ("c", '{"score": 0.75}'))
    assert [record["score"] for record in opened.get("abc").values()] == [0.25, 0.5, 0.75]
    assert [row.context for row in opened.rows()] == [None, ONE.digest, None]
    assert opened.damage() == []


def test_store_of_an_unknown_version_is_refused_and_left_alone(path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, payload BLOB)")
    with pytest.raises(ArtifactError, match=r"cannot be used \(no such column: record\)"):
        Store(path).get(["a"])
    with pytest.raises(ArtifactError, match=r"cannot be used .* move it away, and run again"):
        Store(path).put("a", {"score": 0.5})
    with closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(records)")]
        assert columns == ["id", "payload"]
        assert connection.execute("SELECT COUNT(*) FROM records").fetchone() == (0,)


def test_only_records_of_the_named_contexts_are_removed(path):
    opened = Store(path)
    opened.put("a", {}, ONE)
    opened.put("b", {}, OTHER)
    opened.put("c", {})
    assert opened.remove([OTHER.digest, "3" * 64]) == 1
    assert [row.key for row in opened.rows()] == ["a", "c"]
    assert opened.contexts() == {ONE.digest: {"model": "a"}}
