"""One forward pass, watched: which layers run, in which order, with how many MACs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from seernet.errors import ModelError


@dataclass(frozen=True)
class Profile:
    """What one image meets on its way through a network.

    Attributes:
        layers: MACs of each `Conv2d` and `Linear` that is called as a module, in order of the
            first call.
        norms: Batch norms and PReLUs that are called.
        read: Parameters that some operation reads; others cost nothing.
        folds: Batch norms that fold into the layer before them: norm name to layer name.
        opaque: Modules that use the weights of layers inside them without calling these
            (attention), and layers of a class of their own, with the reason why they stay whole.
        opaque_macs: MACs of each of them, without those of `layers` inside.
        whole_macs: MACs of everything that is not in `layers`.
    """

    layers: dict[str, int]
    norms: tuple[str, ...]
    read: frozenset[str]
    folds: dict[str, str]
    opaque: dict[str, str]
    opaque_macs: dict[str, int]
    whole_macs: int

    def opaque_part(self, name: str) -> str | None:
        """The opaque module that a module is, or lies in."""
        return next((part for part in self.opaque if _inside(name, part)), None)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what modules and operations do during one forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: dict[str, int] = {}
        self.called: dict[str, nn.Module] = {}
        self.meetings: set[tuple[str, str | None]] = set()  # norm, layer that feeds it
        self.parameters = {id(p): name for name, p in model.named_parameters()}
        self.read: set[str] = set()
        self._outputs: dict[int, tuple[str, Tensor]] = {}  # holding a tensor keeps its id unique
        self._readers: dict[int, int] = {}
        self.shared: set[str] = set()  # layers whose output is not for one operation only

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        for value in (*args, *(kwargs or {}).values()):
            for item in value if isinstance(value, list | tuple) else (value,):
                if id(item) in self.parameters:
                    self.read.add(self.parameters[id(item)])
                elif id(item) in self._outputs:
                    self._readers[id(item)] += 1
                    if self._readers[id(item)] > 1:
                        self.shared.add(self._outputs[id(item)][0])
        return func(*args, **(kwargs or {}))

    def hook(self, name: str) -> Any:
        """A forward hook for the module of that name."""

        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self.called[name] = module
            source = self._outputs.get(id(inputs[0])) if inputs else None
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                layer = source[0] if source else None
                folds = layer is not None and _folds(module, self.called[layer], inputs[0])
                self.meetings.add((name, layer if folds else None))
            elif is_layer(module):
                self.layers[name] = self.layers.get(name, 0) + _macs(module, output)
                self._outputs[id(output)] = (name, output)
                self._readers[id(output)] = 0

        return note

    def folds(self) -> dict[str, str]:
        """Batch norms that have one layer to themselves, which feeds nothing else."""
        norms = [norm for norm, _ in self.meetings]
        layers = [layer for _, layer in self.meetings]
        return {
            norm: layer
            for norm, layer in sorted(self.meetings, key=lambda pair: pair[0])
            if layer is not None
            and layer not in self.shared
            and norms.count(norm) == layers.count(layer) == 1
        }


def profile(model: nn.Module, image: Tensor) -> Profile:
    """Run `model` (in eval mode) on one image, `1 x c x h x w`, and watch.

    Raises:
        ModelError: If the network cannot take the image.
    """
    watch = _Watch(model)
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU)
    handles = [
        module.register_forward_hook(watch.hook(name))
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter, watch, slow_attention():
            model(image)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise ModelError(
            f"the network cannot take an image of shape {tuple(image.shape[1:])}: {error}; check "
            "data.image_size and data.channels against model.name."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    opaque = _opaque(model, watch)
    flops = counter.get_flop_counts()
    root = type(model).__name__
    opaque_macs = {
        part: sum(flops.get(f"{root}.{part}" if part else root, {}).values()) // 2
        - sum(macs for name, macs in watch.layers.items() if _inside(name, part))
        for part in opaque
    }
    return Profile(
        layers=watch.layers,
        norms=tuple(n for n, m in watch.called.items() if not isinstance(m, nn.Conv2d | nn.Linear)),
        read=frozenset(watch.read),
        folds=watch.folds(),
        opaque=opaque,
        opaque_macs=opaque_macs,
        whole_macs=counter.get_total_flops() // 2 - sum(watch.layers.values()),
    )


def _folds(norm: nn.Module, layer: nn.Module, between: Tensor) -> bool:
    """Whether a batch norm does no more than scale and shift the outputs of a layer in eval mode.

    A subclass may do more (timm's activate, too); without statistics each batch has its own; and
    the channels of a linear layer are the last axis, which a norm takes for its own in `n x c`.
    """
    plain = type(norm).forward in (nn.BatchNorm1d.forward, nn.BatchNorm2d.forward)
    same_axis = isinstance(layer, nn.Conv2d) or between.dim() == 2
    return plain and same_axis and getattr(norm, "running_var", None) is not None


def is_layer(module: nn.Module) -> bool:
    """Whether policies can compress a module.

    A subclass with a forward pass of its own, or weights that are computed (parametrizations),
    would lose them in pruning and quantization; our own quantized layers are the exception.
    """
    if not isinstance(module, nn.Conv2d | nn.Linear):
        return False
    plain = type(module).forward in (nn.Conv2d.forward, nn.Linear.forward)
    return (plain or hasattr(module, "weight_quantizer")) and "weight" in module._parameters


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


def _opaque(model: nn.Module, watch: _Watch) -> dict[str, str]:
    opaque: dict[str, str] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or name in watch.layers:
            continue
        if name in watch.called:
            opaque[name] = f"{type(module).__name__} computes in a way of its own"
        elif any(parameter.startswith(f"{name}.") for parameter in watch.read):
            parent = name.rpartition(".")[0]
            kind = type(model.get_submodule(parent)).__name__
            opaque[parent] = f"{kind} uses the weights of its layers by itself"
    return {
        name: reason
        for name, reason in opaque.items()
        if not any(name != other and _inside(name, other) for other in opaque)
    }


def _inside(name: str, part: str) -> bool:
    return not part or name == part or name.startswith(f"{part}.")
