"""Compression of a network by a policy: channels are removed, what is left is quantized."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from seernet.compression.calibration import calibrate
from seernet.compression.layers import quantized
from seernet.compression.quantizer import Quantizer
from seernet.errors import PolicyError
from seernet.graph import ChannelGroup, NetworkGraph
from seernet.models import expose_maps, is_depthwise, lay_out, remove_channels
from seernet.policy import FULL_BITS, Policy

MAP_BITS = 8


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
        computes what `model` computes, up to statistics that `images` set.

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
    _untie(network)
    remove_channels(network, graph.groups, keep)
    if images is not None:
        lay_out(network, graph.input_shape)
    bits = [*policy.weight_bits.values(), *policy.act_bits.values()]
    if min(bits) < FULL_BITS:
        network = quantize_maps(network, _image(network, graph), MAP_BITS)
    for layer in graph.layers:
        weight_bits, act_bits = policy.weight_bits[layer.name], policy.act_bits[layer.name]
        if min(weight_bits, act_bits) < FULL_BITS:
            _replace(network, network.get_submodule(layer.name), weight_bits, act_bits)
    if images is not None:
        calibrate(network, images, shifted=bool(keep))
    return network


def _untie(network: nn.Module) -> None:
    """Give each layer its own weights, in place: their quantizers and norms will differ."""
    seen: set[int] = set()
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None and id(weight) in seen:
                copied = nn.Parameter(weight.detach().clone(), weight.requires_grad)
                module._parameters[name] = weight = copied
            seen.add(id(weight))


def quantize_maps(model: nn.Module, image: Tensor, bits: int) -> nn.Module:
    """Insert a quantizer wherever a feature map is stored; see `expose_maps`."""
    network, names = expose_maps(model, image)
    for name in names:
        network.set_submodule(name, Quantizer(bits).to(image.device).train(network.training))
    return network


def _image(network: nn.Module, graph: NetworkGraph) -> Tensor:
    like = next(network.parameters())
    image = torch.randn(1, *graph.input_shape, generator=torch.Generator().manual_seed(0))
    return image.to(like.device, like.dtype)


def _replace(network: nn.Module, old: nn.Module, weight_bits: int, act_bits: int) -> None:
    """Quantize one layer in place, under every name that it has in the network."""
    weight: Tensor = old.weight  # type: ignore[assignment]
    new = quantized(old, weight_bits, act_bits).to(weight.device)
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if module is old:
            network.set_submodule(name, new)


def kept_channels(model: nn.Module, policy: Policy, graph: NetworkGraph) -> dict[str, Tensor]:
    """Which channels of each group stay: those of largest weight, over all coupled layers.

    Returns:
        Booleans, one a channel, for each group that the policy prunes.

    Raises:
        PolicyError: If the policy does not belong to the network.
    """
    _check(policy, graph)
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
    for member in group.members:
        energy = _energy(modules[member.module], member.side)
        if energy is None:
            continue
        part = torch.zeros_like(total)
        for run in member.runs:
            positions = torch.arange(run.length * run.repeat)
            channels = run.channel + positions // run.repeat
            part.index_add_(0, channels, energy[run.start + positions])
        total += part / part.mean().clamp(min=1e-30)
    return total


def _energy(module: nn.Module, side: str) -> Tensor | None:
    """Squared weight of each feature on one side of a module, float64 on the CPU."""
    weight = getattr(module, "weight", None)
    if weight is None or (side == "in" and is_depthwise(module)):
        return None  # a depthwise weight counts once, on the output side
    squared: Tensor = weight.detach().double().cpu().square()
    if squared.dim() == 1:
        return squared
    return squared.transpose(0, 1 if side == "in" else 0).flatten(1).sum(dim=1)


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
        for name, bits in getattr(policy, kind).items():
            if bits != FULL_BITS and not 2 <= bits <= 8:
                raise PolicyError(
                    f"{kind} of {name!r} is {bits}; it must be 2 to 8, or {FULL_BITS} for none."
                )
    wrong = {n: r for n, r in policy.pruning_ratio.items() if not 0.0 <= r < 1.0}
    if wrong:
        raise PolicyError(f"pruning ratios lie in [0, 1), not {wrong}; correct the policy.")
    unknown = set(policy.pruning_ratio) - {group.name for group in graph.groups}
    if unknown:
        raise PolicyError(
            f"the policy prunes {', '.join(sorted(unknown)[:3])}, which the network has not as a "
            "channel group; the policy belongs to another network."
        )
