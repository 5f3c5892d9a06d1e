"""Physical removal of channels: weights are sliced, modules shrink, nothing is masked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from seernet.errors import ModelError
from seernet.graph import ChannelGroup, Member


def remove_channels(
    model: nn.Module, groups: Iterable[ChannelGroup], keep: Mapping[str, Tensor]
) -> None:
    """Shrink `model` in place to the channels that are kept.

    Args:
        model: A network whose modules bear the names of the graph.
        groups: Channel groups of its graph.
        keep: For each group's name, which of its channels stay: booleans, one a channel. A group
            that is not named stays whole.
    """
    features: dict[tuple[str, str], Tensor] = {}
    modules = dict(model.named_modules())
    for group in groups:
        if group.name not in keep or bool(keep[group.name].all()):
            continue
        for member in group.members:
            place = (member.module, member.side)
            if place not in features:
                size = width(modules[member.module], member.side)
                features[place] = torch.ones(size, dtype=torch.bool)
            features[place] &= feature_mask(member, keep[group.name], len(features[place]))
    for (name, side), mask in features.items():
        _slice(modules[name], side, mask.nonzero().flatten())


def feature_mask(member: Member, keep: Tensor, width: int) -> Tensor:
    """Which of a module's `width` features stay (booleans), seen from one channel group."""
    mask = torch.ones(width, dtype=torch.bool)
    for run in member.runs:
        kept = keep[run.channel : run.channel + run.length].cpu().repeat_interleave(run.repeat)
        mask[run.start : run.start + len(kept)] = kept
    return mask


def is_depthwise(module: nn.Module) -> bool:
    """Whether a convolution joins each input channel with its own output channel only."""
    return (
        isinstance(module, nn.Conv2d)
        and module.groups > 1
        and module.groups == module.in_channels == module.out_channels
    )


def width(module: nn.Module, side: str) -> int:
    """Features on the `in` or `out` side of a module whose channels can be removed."""
    if isinstance(module, nn.Conv2d):
        return module.in_channels if side == "in" else module.out_channels
    if isinstance(module, nn.Linear):
        return module.in_features if side == "in" else module.out_features
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        return module.num_features
    if isinstance(module, nn.PReLU):
        return module.num_parameters
    raise ModelError(f"channels of a {type(module).__name__} cannot be removed.")


def _slice(module: nn.Module, side: str, index: Tensor) -> None:
    """Keep the features of one side of a module, in place."""
    size = len(index)
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        _select(module, ("weight", "bias", "running_mean", "running_var"), 0, index)
        module.num_features = size
    elif isinstance(module, nn.PReLU):
        _select(module, ("weight",), 0, index)
        module.num_parameters = size
    elif is_depthwise(module):
        if side == "out":  # its input is the same channels
            _select(module, ("weight", "bias"), 0, index)
            module.in_channels = module.out_channels = module.groups = size  # type: ignore[assignment]
    else:
        names, axis = (("weight", "bias"), 0) if side == "out" else (("weight",), 1)
        _select(module, names, axis, index)
        kind = "channels" if isinstance(module, nn.Conv2d) else "features"
        setattr(module, f"{side}_{kind}", size)


def _select(module: nn.Module, names: tuple[str, ...], axis: int, index: Tensor) -> None:
    for name in names:
        tensor = getattr(module, name)
        if tensor is None:
            continue
        part = tensor.detach().index_select(axis, index.to(tensor.device)).clone()
        if isinstance(tensor, nn.Parameter):
            part = nn.Parameter(part, requires_grad=tensor.requires_grad)
        setattr(module, name, part)
