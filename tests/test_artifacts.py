"""JSON files are complete or absent, and a bad one names the stage that writes it."""

import json

import pytest

from seernet.artifacts import read_json, write_json
from seernet.errors import ArtifactError


def test_document_comes_back(tmp_path):
    path = tmp_path / "new" / "folder" / "a.json"
    document = {"b": 0.1 + 0.2, "a": [1, None], "c": {"text": "é"}}
    write_json(path, document)
    assert read_json(path, "fit") == document
    assert path.read_text(encoding="utf-8").endswith("}\n")
    assert list(path.parent.iterdir()) == [path]


def test_equal_documents_are_equal_files(tmp_path):
    for name in ("a", "b"):
        write_json(tmp_path / name, {"x": 1 / 3})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_write_that_stops_halfway_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def half(self, text, encoding):
        self.write_bytes(text.encode()[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_text", half)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"a": 2})
    monkeypatch.undo()
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [None, "", '{"a": 1', "[1]", "\udcff"])
def test_bad_file_names_the_stage_to_run(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError, match=r"a\.json.*run `dvc repro optimize@small`"):
        read_json(path, "optimize@small")
