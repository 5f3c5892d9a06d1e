"""Whatever a checkpoint file holds, it is loaded whole, or refused by name; none of it is run."""

import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from seernet.errors import ModelError
from seernet.models.state import load_checkpoint

MUTANTS = 300  # of each kind of file
State = dict[str, Any]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def outcome(path: Path, state: dict[str, Tensor]) -> str | None:
    """The message that refuses a checkpoint; None if it was loaded, whole."""
    model = network()
    try:
        load_checkpoint(model, path)
    except ModelError as error:
        return str(error)
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(bool(value.isfinite().all()) for value in loaded.values())
    return None


@pytest.mark.parametrize("name", ["c.pt", "c.safetensors"])
def test_every_damaged_file_is_loaded_or_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    state = network().state_dict()
    (torch.save if name == "c.pt" else save_file)(state, path)
    whole = path.read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(MUTANTS):
        content = bytearray(whole)
        if draw.random() < 0.3:
            del content[draw.randrange(len(content)) :]
        else:
            reach = draw.choice([16, 200, len(content)])
            for _ in range(draw.randint(1, 8)):
                content[draw.randrange(min(reach, len(content)))] = draw.randrange(256)
        path.write_bytes(content)
        message = outcome(path, state)
        assert message is None or str(path) in message
        assert message is None or "model." in message or "torch.save" in message
        refused += message is not None
    assert refused > MUTANTS / 4


ODD: list[Callable[[Tensor], Any]] = [
    lambda t: t.to(torch.complex64),
    lambda t: t.to_sparse(),
    lambda t: t.to("meta"),
    lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    lambda t: torch.zeros(1).expand(10**12),  # four bytes in the file
    lambda t: t[None],
    lambda t: t.flatten()[:-1],
    lambda t: torch.full_like(t, float("inf")),
    lambda t: t.tolist(),
    lambda t: None,
    lambda t: "text",
    lambda t: {"a": t},
]
FITTING: list[Callable[[Tensor], Any]] = [
    lambda t: t.double(),
    lambda t: t.half(),
    lambda t: nn.Parameter(t),
    lambda t: torch.zeros(1).expand(t.shape),
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch, on how they were made
@pytest.mark.parametrize("number", range(len(ODD)))
def test_an_entry_that_is_no_plain_finite_tensor_of_its_shape_is_refused(
    tmp_path: Path, number: int
) -> None:
    state: State = network().state_dict()
    for entry in ("0.weight", "surplus"):
        changed = {**state, entry: ODD[number](state["0.weight"])}
        torch.save(changed, tmp_path / "c.pt")
        message = outcome(tmp_path / "c.pt", state)
        assert message is not None
        assert "c.pt" in message
        assert entry in message or "holds no state dict" in message


@pytest.mark.parametrize("number", range(len(FITTING)))
def test_other_plain_tensors_of_the_right_shape_are_loaded(tmp_path: Path, number: int) -> None:
    state: State = network().state_dict()
    torch.save({**state, "0.weight": FITTING[number](state["0.weight"])}, tmp_path / "c.pt")
    assert outcome(tmp_path / "c.pt", state) is None


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def dangerous(path: Path) -> list[object]:
    """Objects whose unpickling would make a file, in the ways that pickles can call."""
    return [
        Call(Path.touch, path),
        Call(path.write_text, "ran"),
        Call(eval, f"open({str(path)!r}, 'w')"),
        Call(exec, f"open({str(path)!r}, 'w')"),
        Call(os.system, f"touch {path}"),
        Call(torch.load, str(path)),
        Call(getattr, path, "touch"),
    ]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_code_of_a_pickle_runs(tmp_path: Path, number: int, protocol: int) -> None:
    ran = tmp_path / "ran"
    bomb = dangerous(ran)[number]
    state: State = {**network().state_dict(), "0.weight": bomb}
    files = {"raw.pt": pickle.dumps(bomb, protocol), "raw.pth": pickle.dumps([bomb], protocol)}
    files["raw.safetensors"] = files["raw.pt"]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    torch.save(state, tmp_path / "zip.pt", pickle_protocol=max(2, protocol))
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": state, "hook": bomb}, tmp_path / "nested.pt")
    for name in (*files, "zip.pt", "old.pt", "nested.pt"):
        message = outcome(tmp_path / name, network().state_dict())
        assert message is not None
        assert f"{name} cannot be read" in message
    assert not ran.exists()
