"""A shipped folder gives the network back, without the pipeline."""

import json

import pytest
import torch
from safetensors.torch import load_file

import seernet
from seernet.compression import as_packed, compress, count
from seernet.config import ModelConfig, SpaceConfig
from seernet.data import DatasetInfo
from seernet.errors import ArtifactError, ModelError
from seernet.export import MODEL, TENSORS, Shipped, save
from seernet.models import build, trace
from seernet.policy import SearchSpace
from seernet.sampling import SpreadDesign
from seernet.training import Exact, seeded

CASES = {"resnet20": ("classification", 32), "small_ssd": ("detection", 64)}


def info(task: str, side: int) -> DatasetInfo:
    """A data set of four classes."""
    return DatasetInfo(
        task=task,
        name="made up",
        classes=("a", "b", "c", "d"),
        channels=3,
        image_size=(side, side),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.2, 0.2),
        storage="memory",
        root=None,
        counts={"train": 1, "search": 1, "test": 1},
        fingerprint="",
        warnings=(),
    )


@pytest.fixture(params=CASES)
def shipped(request, tmp_path):
    """A folder, the network that was saved into it, and images."""
    task, side = CASES[request.param]
    data = info(task, side)
    config = ModelConfig(name=request.param, arguments={"width": 8})
    with seeded(0):
        model = build(config, 4, data.input_shape, task).eval()
    graph = trace(model, data.input_shape, 4)
    space = SearchSpace(graph, SpaceConfig())
    policy = space.decode(SpreadDesign(space, (0.005, 0.03), 0).draw_many(0, 1))[0]
    images = torch.rand(16, *data.input_shape, generator=torch.Generator().manual_seed(0))
    network = compress(model, policy, graph, images).eval()
    save(tmp_path / "ship", network, Shipped.of(config, policy, graph, data))
    return tmp_path / "ship", network, images


def test_network_comes_back(shipped):
    folder, network, images = shipped
    restored = seernet.load(folder)
    with torch.no_grad():
        expected, found = network(images), restored(images)
    assert float((found - expected).abs().mean()) < 0.02 * float(expected.std())
    assert restored.shipped.classes == ("a", "b", "c", "d")
    assert restored.shipped.mean == (0.5, 0.4, 0.3)
    assert not restored.training


def test_what_is_scored_is_what_ships(shipped):
    folder, network, images = shipped
    restored = seernet.load(folder)
    scored = as_packed(network, restored.shipped.graph.input_shape)
    expected, found = scored.state_dict(), restored.state_dict()
    assert all(torch.equal(value, found.pop(name)) for name, value in expected.items())
    assert not found
    with torch.no_grad():
        assert torch.equal(Exact(scored)(images), Exact(restored)(images))


def test_detector_still_detects(shipped):
    folder, network, images = shipped
    restored = seernet.load(folder)
    if restored.shipped.task == "detection":
        with torch.no_grad():
            pairs = zip(network.detect(images), restored.detect(images), strict=True)
        for expected, found in pairs:
            assert len(found["boxes"]) == pytest.approx(len(expected["boxes"]), abs=3)


def test_file_is_as_small_as_is_counted(shipped):
    folder, network, images = shipped
    stored = sum(v.numel() * v.element_size() for v in load_file(folder / TENSORS).values())
    assert stored == pytest.approx(count(network, images.shape[1:]).size_bytes, rel=0.05)


def test_loading_draws_nothing_from_the_global_generator(shipped):
    folder, _, _ = shipped
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    seernet.load(folder)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    "damage", ["no tensors", "no document", "version", "cut off", "flipped", "part", "policy"]
)
def test_damaged_folder_is_refused(shipped, damage):
    folder, _, _ = shipped
    document = json.loads((folder / MODEL).read_text(encoding="utf-8"))
    if damage == "no tensors":
        (folder / TENSORS).unlink()
    elif damage == "no document":
        (folder / MODEL).unlink()
    elif damage == "cut off":
        (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:-50])
    elif damage == "flipped":
        content = bytearray((folder / TENSORS).read_bytes())
        content[-100] ^= 1
        (folder / TENSORS).write_bytes(content)
    else:
        if damage == "version":
            document["version"] = 99
        elif damage == "policy":
            document["policy"]["weight_bits"] = {"conv": 2.5}
        else:
            del document["policy"]
        (folder / MODEL).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ArtifactError, match="does not hold a packed network"):
        seernet.load(folder)


def test_code_that_a_folder_names_runs_only_if_it_is_trusted(shipped, tmp_path, monkeypatch):
    """A folder of someone else's is data; who wants its network's code to run says so."""
    folder, _, _ = shipped
    document = json.loads((folder / MODEL).read_text(encoding="utf-8"))
    task, side = CASES[document["model"]["name"]]
    (tmp_path / "theirs.py").write_text(f"""
from pathlib import Path
from seernet.config import ModelConfig
from seernet.models import build

def make(num_classes, width):
    Path("ran").touch()
    config = ModelConfig(name="{document["model"]["name"]}", arguments={{"width": width}})
    model = build(config, num_classes, (3, {side}, {side}), "{task}")
    return getattr(model, "model", model)
""")
    monkeypatch.chdir(tmp_path)
    document["model"]["name"] = "theirs.py:make"
    (folder / MODEL).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ModelError, match="trust_code=True"):
        seernet.load(folder)
    assert not (tmp_path / "ran").exists()
    assert seernet.load(folder, trust_code=True).shipped.task == task
    assert (tmp_path / "ran").exists()


def test_files_are_as_readable_as_any_new_file(shipped):
    folder, _, _ = shipped
    assert (folder / TENSORS).stat().st_mode == (folder / MODEL).stat().st_mode


def test_package_has_nothing_else():
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        seernet.lode  # noqa: B018 - the access is the test
