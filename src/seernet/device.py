"""What `auto` leaves to the machine: the device, and the arithmetic that is fast on it."""

from __future__ import annotations

import logging

from seernet.config import Params
from seernet.errors import ConfigError

logger = logging.getLogger(__name__)


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


def resolve(params: Params) -> Params:
    """Parameters without `auto`: `device`, and `precision` wherever it stands.

    A precision of `auto` is bfloat16 where the device computes in it, else float32.

    Raises:
        ConfigError: See `resolve_device`.
    """
    device = resolve_device(params.device)
    fast = has_bfloat16(device)
    sample = params.sample
    asked = (params.pretrain.precision, sample.evaluation.precision, params.finetune.precision)
    if "bfloat16" in asked and not fast:
        logger.warning(
            "this machine has no bfloat16 arithmetic, and emulating it makes training some ten "
            "times slower; set precision: auto or float32."
        )
    pretrain, evaluation, finetune = (
        {"precision": ("bfloat16" if fast else "float32") if one == "auto" else one}
        for one in asked
    )
    measured = sample.evaluation.model_copy(update=evaluation)
    return params.model_copy(
        update={
            "device": device,
            "pretrain": params.pretrain.model_copy(update=pretrain),
            "sample": sample.model_copy(update={"evaluation": measured}),
            "finetune": params.finetune.model_copy(update=finetune),
        }
    )


def has_bfloat16(device: str) -> bool:
    """Whether a device has instructions for bfloat16; others emulate them, slowly."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older torch does not tell.
    tell = getattr(torch.cpu, "get_capabilities", dict)
    return any(bool(value) for name, value in tell().items() if name.endswith("bf16"))
