"""One forward pass, watched: which layers run, in which order, with how many MACs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seernet.errors import ModelError


@dataclass(frozen=True)
class Profile:
    """What one image meets on its way through a network.

    Attributes:
        layers: MACs of each `Conv2d` and `Linear` that is called as a module, in order of the
            first call.
        folds: Batch norms that fold into the layer before them: norm name to layer name.
        opaque: Modules that use the weights of layers inside them without calling these
            (attention), with the reason why they stay whole.
        opaque_macs: MACs of each of them.
        whole_macs: MACs of everything that is not in `layers`.
    """

    layers: dict[str, int]
    folds: dict[str, str]
    opaque: dict[str, str]
    opaque_macs: dict[str, int]
    whole_macs: int


def profile(model: nn.Module, image: Tensor) -> Profile:
    """Run `model` (in eval mode) on one image, `1 x c x h x w`, and watch.

    Raises:
        ModelError: If the network cannot take the image.
    """
    layers: dict[str, int] = {}
    folds: dict[str, str] = {}
    producers: dict[int, tuple[str, Tensor]] = {}
    uses: dict[int, int] = {}

    def watch(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        source = producers.get(id(inputs[0]))
        uses[id(inputs[0])] = uses.get(id(inputs[0]), 0) + 1
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            if source is not None:
                folds[name] = source[0]
            return
        layers[name] = layers.get(name, 0) + _macs(module, output)
        producers[id(output)] = (name, output)  # holding the tensor keeps its id unique

    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
    handles = [
        module.register_forward_hook(
            lambda m, i, o, name=name: watch(name, m, i, o)  # type: ignore[misc]
        )
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    counter = FlopCounterMode(display=False, depth=None)
    try:
        with torch.no_grad(), counter, slow_attention():
            model(image)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise ModelError(
            f"the network cannot take an image of shape {tuple(image.shape[1:])}: {error}; check "
            "data.image_size and data.channels against model.name."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    opaque = _opaque(model, layers)
    flops = counter.get_flop_counts()
    root = type(model).__name__
    opaque_macs = {
        name: sum(flops.get(f"{root}.{name}" if name else root, {}).values()) // 2
        for name in opaque
    }
    whole = counter.get_total_flops() // 2 - sum(layers.values())
    return Profile(layers, folds, opaque, opaque_macs, whole)


@contextmanager
def slow_attention() -> Iterator[None]:
    """Switch off attention's fused inference path, which hides its operations from counters."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _macs(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    raise ModelError(f"{type(module).__name__} is not a layer.")


def _opaque(model: nn.Module, layers: dict[str, int]) -> dict[str, str]:
    opaque: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and name not in layers:
            parent = name.rpartition(".")[0]
            kind = type(model.get_submodule(parent)).__name__
            opaque[parent] = f"{kind} uses the weights of its layers by itself"
    nested = [n for n in opaque if any(n != o and n.startswith(f"{o}.") for o in opaque)]
    return {name: reason for name, reason in opaque.items() if name not in nested}
