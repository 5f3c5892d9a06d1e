"""Coupled channels, read off torch-pruning's dependency graph (Fang et al., DepGraph, CVPR 2023).

Channels that meet in a residual add, or pass a depthwise convolution, are one group.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from seernet.graph import ChannelGroup, Member, Run
from seernet.models.profile import Profile
from seernet.models.surgery import is_depthwise

PRUNABLE = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU)


class _Stand(nn.Module):
    """Takes the place of an opaque module while dependencies are traced.

    Its linear map couples what enters with nothing that leaves, and torch-pruning knows it; inside
    an attention module it would get lost.
    """

    def __init__(self, features: int, returns_tuple: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(features, features).double()
        self.returns_tuple = returns_tuple

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Any:
        out = self.linear(x)
        return (out, None) if self.returns_tuple else out


def find_groups(
    model: nn.Module, image: Tensor, seen: Profile
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Find the channel groups of a network.

    Args:
        model: In eval mode; left as it is.
        image: One image, `1 x c x h x w`.
        seen: The network's profile.

    Returns:
        The groups that look prunable, in order of execution, and for the others the reason.
    """
    import torch_pruning as tp

    model = _without_opaque(copy.deepcopy(model), image, seen)
    names = {module: name for name, module in model.named_modules()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bare parameters: their groups are refused below
        try:
            with _heads(model) as transform:
                dependencies = tp.DependencyGraph().build_dependency(
                    model, image, output_transform=transform
                )
            found = list(dependencies.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]))
        except Exception as error:  # noqa: BLE001 - many ways; quantization still works
            return [], {"all": f"torch-pruning cannot follow the network ({error!r:.120})"}
    order = {name: position for position, name in enumerate(seen.layers)}
    readers = {name for name in seen.layers if not is_depthwise(model.get_submodule(name))}
    groups: list[ChannelGroup] = []
    kept: dict[str, str] = {}
    for items in found:
        group, reason = _group(dependencies, items, names, seen)
        if group is None:
            continue
        if not any(m.side == "in" and m.module in readers for m in group.members):
            continue  # the predictions themselves
        if reason is None:
            groups.append(group)
        else:
            kept[group.name] = reason
    groups.sort(key=lambda group: order[group.name])
    return groups, kept


@contextmanager
def _heads(model: nn.Module) -> Iterator[Callable[[Any], Any]]:
    """What torch-pruning is to take for the output of a network.

    Of a detector that is what its heads' layers give, before it is rearranged: following single
    predictions through the rearrangement takes minutes.
    """
    seen: list[Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _, __, output: seen.append(output))
        for name in getattr(model, "outputs", ())
        for layer in model.get_submodule(name).modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        yield lambda output: list(seen) or output
    finally:
        for handle in handles:
            handle.remove()


def _group(
    dependencies: Any, items: Any, names: dict[nn.Module, str], seen: Profile
) -> tuple[ChannelGroup | None, str | None]:
    """Translate one group of torch-pruning; the reason says why it cannot be pruned, if so."""
    channels = len(items[0].idxs)
    features: dict[tuple[str, str], dict[int, int]] = {}
    reason: str | None = None
    for item in items:
        module = item.dep.target.module
        if module not in names or type(module).__module__.startswith("torch_pruning"):
            if isinstance(module, nn.Parameter):
                reason = "shared with a bare parameter"
            continue
        name = names[module]
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            continue  # one slope for all channels
        if not isinstance(module, PRUNABLE):
            if list(module.parameters(recurse=False)):
                reason = f"shared with {name} ({type(module).__name__})"
            continue
        if part := seen.opaque_part(name):
            reason = f"shared with {part}, which stays whole"
            continue
        if isinstance(module, nn.Conv2d) and module.groups > 1 and not is_depthwise(module):
            reason = f"shared with the grouped convolution {name}"
        outward = dependencies.is_out_channel_pruning_fn(item.dep.handler)
        sides = ("in", "out") if is_depthwise(module) else ("out" if outward else "in",)
        for side in sides:
            places = features.setdefault((name, side), {})
            places.update(zip(item.idxs, item.root_idxs, strict=True))
    if not all(_evenly(places, channels) for places in features.values()):
        reason = "coupled with a part of other channels only"
    producers = [n for n in seen.layers if (n, "out") in features]
    if not producers:
        return None, None
    members = tuple(
        Member(name, "in" if side == "in" else "out", _runs(places))
        for (name, side), places in sorted(features.items())
    )
    return ChannelGroup(producers[0], channels, members), reason


def _evenly(places: dict[int, int], channels: int) -> bool:
    """Whether each channel has the same number of features."""
    counts = Counter(places.values())
    return len(counts) == channels and len(set(counts.values())) == 1


def _runs(places: dict[int, int]) -> tuple[Run, ...]:
    """Compress feature -> channel into runs of consecutive channels, equally often repeated."""
    blocks: list[list[int]] = []  # start, channel, repeat
    for feature, channel in sorted(places.items()):
        if blocks and feature == sum(blocks[-1][::2]) and channel == blocks[-1][1]:
            blocks[-1][2] += 1
        else:
            blocks.append([feature, channel, 1])
    runs: list[Run] = []
    for start, channel, repeat in blocks:
        last = runs[-1] if runs else None
        if (
            last is not None
            and repeat == last.repeat
            and start == last.start + last.length * repeat
            and channel == last.channel + last.length
        ):
            runs[-1] = Run(last.start, last.length + 1, last.channel, repeat)
        else:
            runs.append(Run(start, 1, channel, repeat))
    return tuple(runs)


def _without_opaque(model: nn.Module, image: Tensor, seen: Profile) -> nn.Module:
    """Replace each opaque module by a stand-in of the same shapes, where it has simple ones."""
    shapes: dict[str, tuple[int, bool]] = {}

    def watch(name: str, inputs: tuple[Any, ...], output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if inputs and isinstance(first, Tensor) and first.shape == inputs[0].shape:
            shapes[name] = (first.shape[-1], isinstance(output, tuple))

    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _, i, o, name=name: watch(name, i, o)  # type: ignore[misc]
        )
        for name in seen.opaque
        if name and not isinstance(model.get_submodule(name), nn.Conv2d)
    ]
    with torch.no_grad():
        model(image)
    for handle in handles:
        handle.remove()
    for name, (features, returns_tuple) in shapes.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, _Stand(features, returns_tuple))
    return model
