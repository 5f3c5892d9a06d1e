"""A network graph survives its file, and a bad file is refused with the remedy."""

import json
from pathlib import Path

import pytest

from seernet.errors import ArtifactError
from seernet.graph import ChannelGroup, Layer, Member, NetworkGraph, Norm, Run, Whole

GRAPH = NetworkGraph(
    input_shape=(3, 8, 8),
    layers=(
        Layer("a", "conv", 1728, 27, 3, 1, {}, {"a": 1}, False, True, True),
        Layer("b", "linear", 10, 10, 1, 10, {"a": 1}, {}, False, False, True),
    ),
    groups=(ChannelGroup("a", 1, (Member("a", "out", (Run(0, 1, 0, 1),)),)),),
    norms=(Norm("n", 1, {"a": 1}, 1),),
    whole=(Whole("w", 5, 6, "attention"),),
    kept={"c": "shared"},
    maps=4,
)


def test_graph_survives_its_file(tmp_path: Path) -> None:
    GRAPH.save(tmp_path / "graph.json")
    assert NetworkGraph.load(tmp_path / "graph.json") == GRAPH


def test_graph_file_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        GRAPH.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("content", ["", "[]", "3", '{"version": 3}', '{"version": 3, "layers": 3'])
def test_damaged_graph_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "graph.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"graph\.json.*run the pretrain stage"):
        NetworkGraph.load(tmp_path / "graph.json")


def test_graph_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    GRAPH.save(tmp_path / "graph.json")
    document = json.loads((tmp_path / "graph.json").read_text())
    document["layers"][0]["color"] = "red"
    (tmp_path / "graph.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="color"):
        NetworkGraph.load(tmp_path / "graph.json")


def test_missing_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="pretrain"):
        NetworkGraph.load(tmp_path / "graph.json")


def test_graph_of_another_version_is_refused(tmp_path: Path) -> None:
    GRAPH.save(tmp_path / "graph.json")
    document = json.loads((tmp_path / "graph.json").read_text()) | {"version": 99}
    (tmp_path / "graph.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="version 99"):
        NetworkGraph.load(tmp_path / "graph.json")
