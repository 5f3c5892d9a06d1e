"""Networks by name, with weights and checkpoints; every mistake gets a sentence to act on."""

import pickle
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from seernet.config import ModelConfig
from seernet.errors import ModelError
from seernet.models import build, read_state
from seernet.models.state import load_checkpoint

SHAPE = (3, 16, 16)

USERS = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass
class Size:
    width: int

def tiny(num_classes, in_channels, width=4):
    size = Size(width)
    return nn.Sequential(nn.Conv2d(in_channels, size.width, 16), nn.Flatten(),
                         nn.Linear(size.width, num_classes))

def broken():
    raise RuntimeError("out of ideas")

def number(num_classes):
    return num_classes
"""


def config(name: str, **options: Any) -> ModelConfig:
    return ModelConfig(name=name, **options)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    (tmp_path / "users.py").write_text(USERS)
    return tmp_path / "users.py"


def small() -> nn.Module:
    return build(config("resnet20", arguments={"width": 4}), 10, SHAPE)


def with_checkpoint(path: Path) -> nn.Module:
    return build(config("resnet20", arguments={"width": 4}, checkpoint=str(path)), 10, SHAPE)


def same(a: nn.Module, b: nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[key]) for key, value in a.state_dict().items())


def test_resnet20_takes_arguments_and_channels() -> None:
    model = build(config("resnet20", arguments={"width": 4}), 7, (1, 16, 16))
    assert model(torch.zeros(2, 1, 16, 16)).shape == (2, 7)
    assert model.get_submodule("conv").weight.shape == (4, 1, 3, 3)


def test_vgg_small_takes_the_image_size() -> None:
    model = build(config("vgg_small", arguments={"width": 4}), 7, SHAPE)
    assert model(torch.zeros(2, *SHAPE)).shape == (2, 7)


def test_published_sizes_of_our_networks() -> None:
    def parameters(name: str) -> int:
        return sum(p.numel() for p in build(config(name), 10, (3, 32, 32)).parameters())

    # ResNet-20: 16-16 x6, 16-32 + 32-32 x5, 32-64 + 64-64 x5 of 3 x 3, two projections, norms, fc
    convs = 9 * (3 * 16 + 6 * 16**2 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2)
    norms = 2 * (7 * 16 + 7 * 32 + 7 * 64)
    assert parameters("resnet20") == convs + 16 * 32 + 32 * 64 + norms + 650
    pairs = 3 * 128 + 128**2 + 128 * 256 + 256**2 + 256 * 512 + 512**2
    assert parameters("vgg_small") == 9 * pairs + 2 * 2 * (128 + 256 + 512) + 8192 * 10 + 10


def test_torchvision_network_has_the_classes_of_the_data() -> None:
    model = build(config("torchvision:squeezenet1_1"), 7, (3, 64, 64)).eval()
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_users_file_is_built_and_may_hold_dataclasses(users: Path) -> None:
    model = build(config(f"{users}:tiny", arguments={"width": 6}), 7, SHAPE)
    assert model(torch.zeros(2, *SHAPE)).shape == (2, 7)


def test_users_module_is_built() -> None:
    name = "torchvision.models.squeezenet:squeezenet1_0"
    assert isinstance(build(config(name, arguments={"num_classes": 3}), 10, SHAPE), nn.Module)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet21", {}, r"unknown model 'resnet21' for classification \(near: resnet20"),
        ("resnet18", {}, r"near: torchvision:resnet18"),
        ("torchvision:resnet19", {}, r"no classifier 'resnet19'.*torchvision:resnet"),
        ("torchvision:resnet18", {"wings": 2}, r"does not take.*wings.*model\.arguments"),
        ("resnet20", {"wings": 2}, r"cannot be built.*wings.*model\.arguments"),
        ("nowhere.py:tiny", {}, r"'nowhere\.py' does not exist"),
        ("no.such.module:tiny", {}, r"cannot import 'no\.such\.module'"),
        ("torch.nn:Missing", {}, r"'torch\.nn' has no function 'Missing'"),
        ("{users}:missing", {}, r"no function 'missing'.*model\.name"),
        ("{users}:broken", {}, r"cannot be built.*out of ideas"),
        ("{users}:number", {}, r"must return a torch\.nn\.Module, not int"),
    ],
)
def test_wrong_names_and_arguments_are_refused(
    users: Path, name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        build(config(name.format(users=users), arguments=arguments), 10, SHAPE)


def test_error_inside_the_users_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("open('no-such-file')")
    with pytest.raises(ModelError, match=r"cannot import.*no-such-file"):
        build(config(f"{tmp_path / 'bad.py'}:tiny"), 10, SHAPE)


def test_weights_go_with_torchvision_only() -> None:
    with pytest.raises(ModelError, match=r"torchvision networks only.*model\.checkpoint"):
        build(config("resnet20", weights="DEFAULT"), 10, SHAPE)


def test_unknown_weights_are_refused_with_the_choice() -> None:
    with pytest.raises(ModelError, match="choose from: IMAGENET1K_V1"):
        build(config("torchvision:resnet18", weights="V9"), 10, SHAPE)


def test_weights_that_cannot_be_fetched_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot be fetched.*no network.*model\.checkpoint"):
        build(config("torchvision:squeezenet1_1", weights="DEFAULT"), 10, SHAPE)


def test_published_weights_leave_out_another_classifier(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    published = build(config("torchvision:squeezenet1_1"), 1000, SHAPE).state_dict()
    received: dict[str, Any] = {}

    def load(*_: Any, **options: Any) -> dict[str, Any]:
        received.update(options)
        return dict(published)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)
    model = build(config("torchvision:squeezenet1_1", weights="DEFAULT"), 10, SHAPE)
    assert torch.equal(model.state_dict()["features.0.weight"], published["features.0.weight"])
    assert "classifier.1.weight" in caplog.text
    assert "features" not in caplog.text
    assert received["weights_only"] is True


@pytest.mark.parametrize("nested", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_torch_checkpoint_is_loaded(tmp_path: Path, nested: str | None, prefix: str) -> None:
    source = small()
    state: dict[str, Any] = {f"{prefix}{key}": v for key, v in source.state_dict().items()}
    torch.save(state if nested is None else {nested: state, "epoch": 3}, tmp_path / "c.pt")
    assert same(with_checkpoint(tmp_path / "c.pt"), source)


class Wrapped(torch.nn.Module):
    """A network of one's own whose parts all stand under `model`, as those of a detector do."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Linear(2, 2)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_checkpoint_of_a_network_with_a_part_called_model_fits(
    tmp_path: Path, prefix: str
) -> None:
    source, target = Wrapped(), Wrapped()
    state = {f"{prefix}{key}": value for key, value in source.state_dict().items()}
    save_file(state, tmp_path / "c.safetensors")
    load_checkpoint(target, tmp_path / "c.safetensors")
    assert same(target, source)


def test_safetensors_checkpoint_is_loaded(tmp_path: Path) -> None:
    source = small()
    save_file(source.state_dict(), tmp_path / "c.safetensors")
    assert same(with_checkpoint(tmp_path / "c.safetensors"), source)


def test_wrong_shapes_are_named(tmp_path: Path) -> None:
    wide = build(config("resnet20", arguments={"width": 8}), 10, SHAPE)
    save_file(wide.state_dict(), tmp_path / "c.safetensors")
    with pytest.raises(ModelError, match=r"conv\.weight is \(8, 3, 3, 3\), not \(4, 3, 3, 3\)"):
        with_checkpoint(tmp_path / "c.safetensors")


def test_missing_and_unexpected_entries_are_named(tmp_path: Path) -> None:
    state = small().state_dict()
    state["head.weight"] = state.pop("fc.weight")
    save_file(state, tmp_path / "c.safetensors")
    with pytest.raises(ModelError, match=r"missing fc\.weight \(1 in all\).*head\.weight"):
        with_checkpoint(tmp_path / "c.safetensors")


def test_code_in_a_checkpoint_never_runs(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    torch.save({"state_dict": Bomb()}, tmp_path / "zip.pt")
    for name in ("plain.pt", "zip.pt"):
        with pytest.raises(ModelError, match="holds tensors only"):
            read_state(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["c.pt", "c.safetensors"])
def test_damaged_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="cannot be read"):
        read_state(tmp_path / name)


def test_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not exist; check model\.checkpoint"):
        read_state(tmp_path / "c.pt")


def test_file_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "c.pt")
    with pytest.raises(ModelError, match="holds no state dict"):
        read_state(tmp_path / "c.pt")


def test_package_in_the_working_folder_is_found(tmp_path, monkeypatch):
    """A stage script starts with `stages/` on its path, not with the repository's root."""
    (tmp_path / "nets_of_mine").mkdir()
    source = (
        "from torch import nn\n\ndef make(num_classes):\n    return nn.Linear(3, num_classes)\n"
    )
    (tmp_path / "nets_of_mine" / "line.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    model = build(ModelConfig(name="nets_of_mine.line:make"), 7, (1, 8, 8))
    assert model.out_features == 7


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    state = build(ModelConfig(name="resnet20"), 10, SHAPE).state_dict()
    state["fc.bias"][0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    config = ModelConfig(name="resnet20", checkpoint=str(tmp_path / "nan.safetensors"))
    with pytest.raises(ModelError, match=r"not finite in fc\.bias"):
        build(config, 10, SHAPE)
