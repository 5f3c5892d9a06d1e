"""The device of the `device` parameter."""

from __future__ import annotations

from seernet.errors import ConfigError


def resolve_device(name: str) -> str:
    """`auto` takes a GPU where there is one.

    Raises:
        ConfigError: If `cuda` is asked for and there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device is `cuda`, but torch finds no GPU; set device: auto or cpu.")
    return "cuda" if available and name != "cpu" else "cpu"
