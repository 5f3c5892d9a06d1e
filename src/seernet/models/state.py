"""State dicts from files: read without running anything in them, and held against a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from seernet.errors import ModelError


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Load a state dict into `model`; nothing in the file is executed.

    Args:
        model: The network that the checkpoint belongs to.
        path: A `.safetensors` file, or a torch file that holds tensors only: the state dict, or
            a dict with it under `state_dict`, `model_state_dict` or `model`. What
            `torch.compile` and `DataParallel` put before names is dropped.

    Raises:
        ModelError: If the file is missing, damaged, holds more than tensors, or does not fit.
    """
    state = read_state(path)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    state = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    for prefix in ("module.", "model."):  # the latter of our own file of a detector
        if not expected.keys() & state.keys():
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    wrong = [
        f"{key} is {tuple(state[key].shape)}, not {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    odd = [key for key, value in state.items() if not _is_plain(value)]
    # Of what fits only: four bytes in a file can be a tensor of any shape.
    infinite = [
        key
        for key, shape in expected.items()
        if key in state and key not in odd and tuple(state[key].shape) == shape
        if not bool(state[key].isfinite().all())
    ]
    missing = [key for key in expected if key not in state and "num_batches_tracked" not in key]
    surplus = [key for key in state if key not in expected]
    problems = wrong[:3]
    problems += [f"no plain tensors of numbers in {', '.join(odd[:3])}"] if odd else []
    problems += [f"values that are not finite in {', '.join(infinite[:3])}"] if infinite else []
    problems += [f"missing {', '.join(missing[:3])} ({len(missing)} in all)"] if missing else []
    problems += [f"unexpected {', '.join(surplus[:3])} ({len(surplus)} in all)"] if surplus else []
    if problems:
        raise ModelError(
            f"checkpoint {path} does not fit the network: {'; '.join(problems)}; "
            "check model.name and model.arguments."
        )
    model.load_state_dict(state, strict=False)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict; see `load_checkpoint`."""
    if not path.is_file():
        raise ModelError(f"checkpoint {path} does not exist; check model.checkpoint.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling and parsing raise many types; all mean the same here
        raise ModelError(
            f"checkpoint {path} cannot be read ({type(error).__name__}); it is damaged, or neither "
            "a .safetensors file nor a torch file that holds tensors only "
            "(torch.save(model.state_dict(), path))."
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"checkpoint {path} holds no state dict (names and tensors).")
    return {str(key): value for key, value in content.items()}


def _is_plain(value: Tensor) -> bool:
    """Whether a tensor holds real numbers, one after the other, and not only their shape."""
    dense = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    return dense and not value.is_complex()


@contextmanager
def unfetched() -> Iterator[None]:
    """Let torchvision build networks as with published weights, without fetching or loading them.

    The names of weights decide more than values: SSDLite without those of its backbone has fewer
    channels.
    """
    with (
        patch.object(WeightsEnum, "get_state_dict", lambda *_, **__: {}),
        patch.object(nn.Module, "load_state_dict", lambda *_, **__: None),
    ):
        yield
