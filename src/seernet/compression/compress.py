"""Compression of a network by a policy: channels are removed, what is left is quantized."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from seernet.compression.calibration import calibrate
from seernet.compression.layers import quantized
from seernet.compression.merges import quantize_merges
from seernet.errors import PolicyError
from seernet.graph import ChannelGroup, NetworkGraph
from seernet.models import feature_mask, remove_channels
from seernet.policy import FULL_BITS, Policy

MERGE_BITS = 8


def compress(
    model: nn.Module, policy: Policy, graph: NetworkGraph, images: Tensor | None = None
) -> nn.Module:
    """Compress a network.

    Args:
        model: The baseline; left as it is.
        policy: Pruning ratios and bit-widths.
        graph: The baseline's graph.
        images: Normalised images, `n x c x h x w`, on the model's device, that set batch-norm
            statistics and step sizes; None leaves the quantizers to `calibrate`.

    Returns:
        A new network, physically smaller, in the model's mode. At 32 bits and no pruning it
        computes what `model` computes.

    Raises:
        PolicyError: If the policy does not belong to the network.
    """
    return build_compressed(model, policy, graph, kept_channels(model, policy, graph), images)


def build_compressed(
    model: nn.Module,
    policy: Policy,
    graph: NetworkGraph,
    keep: Mapping[str, Tensor],
    images: Tensor | None = None,
) -> nn.Module:
    """Compress with given channels; see `compress` and `kept_channels`."""
    _check(policy, graph)
    network = copy.deepcopy(model)
    remove_channels(network, graph.groups, keep)
    bits = [*policy.weight_bits.values(), *policy.act_bits.values()]
    if min(bits) < FULL_BITS:
        device = next(network.parameters()).device
        network = quantize_merges(network, torch.zeros(1, *graph.input_shape, device=device), MERGE_BITS)
    for layer in graph.layers:
        weight_bits, act_bits = policy.weight_bits[layer.name], policy.act_bits[layer.name]
        if min(weight_bits, act_bits) < FULL_BITS:
            old = network.get_submodule(layer.name)
            new = quantized(old, weight_bits, act_bits).to(old.weight.device)  # type: ignore[arg-type]
            network.set_submodule(layer.name, new)
    if images is not None:
        calibrate(network, images)
    return network


def kept_channels(model: nn.Module, policy: Policy, graph: NetworkGraph) -> dict[str, Tensor]:
    """Which channels of each group stay: those of largest weight, over all coupled layers.

    Returns:
        Booleans, one a channel, for each group that the policy prunes.
    """
    modules = dict(model.named_modules())
    keep = {}
    for group in graph.groups:
        count = round((1.0 - policy.pruning_ratio.get(group.name, 0.0)) * group.channels)
        if count < group.channels:
            mask = torch.zeros(group.channels, dtype=torch.bool)
            order = _importance(group, modules).sort(descending=True, stable=True).indices
            mask[order[: max(count, 1)]] = True
            keep[group.name] = mask
    return keep


def _importance(group: ChannelGroup, modules: Mapping[str, nn.Module]) -> Tensor:
    """Squared weights that touch each channel, each tensor scaled to mean 1, summed.

    Source:
        Fang et al. (2023), DepGraph, sec. 3.3 (group-level importance).
    """
    total = torch.zeros(group.channels, dtype=torch.float64)
    for energy, channels in _energies(group, modules):
        part = torch.zeros_like(total).index_add_(0, channels, energy)
        total += part / part.mean().clamp(min=1e-30)
    return total


def _energies(
    group: ChannelGroup, modules: Mapping[str, nn.Module]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Squared weight of each feature that belongs to the group, and the feature's channel."""
    for member in group.members:
        weight = getattr(modules[member.module], "weight", None)
        if weight is None:
            continue
        axis = 1 if member.side == "in" and weight.dim() > 1 else 0
        if axis < weight.dim() and (axis == 0 or weight.shape[1] > 1 or group.channels == 1):
            energy = weight.detach().double().cpu().square().transpose(0, axis).flatten(1) if weight.dim() > 1 else weight.detach().double().cpu().square()[:, None]
            for run in member.runs:
                count = run.length * run.repeat
                channels = run.channel + torch.arange(count) // run.repeat
                yield energy[run.start : run.start + count].sum(dim=1), channels


def _check(policy: Policy, graph: NetworkGraph) -> None:
    names = {layer.name for layer in graph.layers}
    for kind in ("weight_bits", "act_bits"):
        known = set(getattr(policy, kind))
        if known != names:
            odd = sorted(known ^ names)[:3]
            raise PolicyError(
                f"the policy's {kind} and the network's layers differ in {', '.join(odd)}; the "
                "policy belongs to another network."
            )
    unknown = set(policy.pruning_ratio) - {group.name for group in graph.groups}
    if unknown:
        raise PolicyError(
            f"the policy prunes {', '.join(sorted(unknown)[:3])}, which the network has not as a "
            "channel group; the policy belongs to another network."
        )
