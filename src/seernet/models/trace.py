"""Tracing a network into a `NetworkGraph`: its layers, its MACs, its coupled channels.

The groups come from torch-pruning's dependency graph. Because no analysis of a program foresees
every network, each group is then tried: with about half of its channels physically removed, the
network must compute what the original computes when the consumers' weights for these channels are
zero. That is tried with the network's own weights and with drawn ones, since what lies behind units
that are dead for the image would pass unseen. A group that fails stays whole, and is named with the
reason.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from seernet.errors import ModelError
from seernet.graph import ChannelGroup, Layer, NetworkGraph, Norm, Whole
from seernet.models.coupling import find_groups
from seernet.models.detector import Detector
from seernet.models.maps import expose_maps
from seernet.models.profile import Profile, profile
from seernet.models.surgery import feature_mask, is_depthwise, remove_channels, width


def trace(
    model: nn.Module, input_shape: tuple[int, ...], num_classes: int | None = None
) -> NetworkGraph:
    """Trace a classifier or a `Detector`.

    Args:
        model: The network; left as it is.
        input_shape: Channels, height and width of one image.
        num_classes: How many logits a classifier must give; None takes any number.

    Returns:
        Its graph.

    Raises:
        ModelError: If the network cannot take an image of that shape, cannot be copied, does not
            compute in float64, or has no layer to compress.
    """
    given, model = model, _perturbed(model)
    image = torch.randn(1, *input_shape, generator=torch.Generator().manual_seed(0)).double()
    try:
        seen = profile(model, image)
    except ModelError as error:
        profile(copy.deepcopy(given).cpu().float().eval(), image.float())
        raise ModelError(
            f"{type(given).__name__} computes in float32 only, and tracing needs float64 ("
            f"{error.__cause__}); let it follow its input's type: `x.to(self.conv.weight.dtype)` "
            "for `x.float()`, `dtype=x.dtype` for what it makes, `register_buffer` for constants."
        ) from error
    if not seen.layers:
        raise ModelError(f"{type(model).__name__} has no convolution or linear layer to compress.")
    with torch.no_grad():
        output = _output(model, image)
    if not bool(output.isfinite().all()):
        raise ModelError(
            f"{type(model).__name__} gives outputs that are not finite for a random image; check "
            "its weights and whether it divides by, or takes the logarithm of, something that may "
            "be zero."
        )
    if isinstance(model, Detector):
        model.check_float64(image)
    found = tuple(output.shape)
    if num_classes is not None and not isinstance(model, Detector) and found != (1, num_classes):
        raise ModelError(
            f"the network gives outputs of shape {found} for one image, the data set has "
            f"{num_classes} classes, so (1, {num_classes}) is needed; check model.arguments, or "
            "let the function take num_classes."
        )
    candidates, kept = find_groups(model, image, seen)
    groups, refused = _verified((model, _redrawn(model)), image, candidates, seen)
    kept |= refused
    return NetworkGraph(
        input_shape=tuple(input_shape),
        layers=_layers(model, seen, groups),
        groups=tuple(groups),
        norms=_norms(model, seen, groups),
        whole=_whole(model, seen),
        kept=dict(sorted(kept.items())),
        maps=len(expose_maps(model, image)[1]),
    )


def _perturbed(model: nn.Module) -> nn.Module:
    """A copy in float64 and eval mode in which no parameter is exactly zero.

    A branch that starts at zero (zero-initialised residual gammas) would hide a wrong removal.
    """
    generator = torch.Generator().manual_seed(0)
    try:
        model = copy.deepcopy(model).cpu().double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.add_(noise, alpha=0.02)
                parameter.requires_grad_(True)
    except (RuntimeError, TypeError, ValueError) as error:  # lazy layers; weights made by hooks
        raise ModelError(
            f"the network cannot be copied and perturbed ({error}); run lazy layers "
            "once where it is built, take torch.nn.utils.parametrizations for weight_norm, and "
            "keep numbers that are not trained in buffers."
        ) from error
    return model


def _redrawn(model: nn.Module) -> nn.Module:
    """A copy whose layers and batch norms are drawn as for training, so that signals pass it."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            scale, shift = getattr(module, "weight", None), getattr(module, "bias", None)
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, generator=generator)
            elif isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
                module.reset_running_stats()
                if isinstance(scale, Tensor):
                    scale.uniform_(0.5, 1.5, generator=generator)
            else:
                continue
            if isinstance(shift, Tensor):
                shift.normal_(0.0, 0.1, generator=generator)
    return model


def _verified(
    models: Sequence[nn.Module], image: Tensor, candidates: Sequence[ChannelGroup], seen: Profile
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Split candidates into those whose removal is exact, and the reasons against the others."""
    good: list[ChannelGroup] = []
    refused: dict[str, str] = {}

    def settle(groups: Sequence[ChannelGroup]) -> None:
        if not groups:
            return
        problem = _problem(models, image, groups, seen)
        if problem is None:
            good.extend(groups)
        elif len(groups) == 1:
            refused[groups[0].name] = problem
        else:
            middle = len(groups) // 2
            settle(groups[:middle])
            settle(groups[middle:])

    settle(candidates)
    return good, refused


def _problem(
    models: Sequence[nn.Module], image: Tensor, groups: Sequence[ChannelGroup], seen: Profile
) -> str | None:
    """What is wrong with removing channels of all `groups`; None if nothing is."""
    keep = {g.name: _some(g.channels) for g in groups}
    try:
        for model in models:
            pruned, masked = copy.deepcopy(model), copy.deepcopy(model)
            remove_channels(pruned, groups, keep)
            _mask_consumers(masked, groups, keep)
            with torch.no_grad():
                expected = _output(masked, image)
                difference = _output(pruned, image) - expected
            if not float(difference.abs().max()) <= 1e-6 * float(expected.abs().max()):
                return "its removal changes what the network computes"
        whole_macs = profile(pruned, image).whole_macs
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError, ModelError) as error:
        return f"its removal breaks the network: {' '.join(str(error).split())[:120]}"
    if whole_macs != seen.whole_macs:
        return "its removal changes an operation that is not a layer"
    return None


def _some(channels: int) -> Tensor:
    """About half of the channels, neither the first nor the last, more of the first half.

    A network that reads `x[:, 0]`, or halves its channels, would let a regular choice pass.
    """
    keep = torch.arange(channels) % 2 == 1
    if channels > 2:
        keep[-1] = False
    return keep if bool(keep.any()) else ~keep


def _mask_consumers(
    model: nn.Module, groups: Iterable[ChannelGroup], keep: dict[str, Tensor]
) -> None:
    """Zero the weights, in place, by which the next layers read the channels that go."""
    modules = dict(model.named_modules())
    for group in groups:
        for member in group.members:
            module = modules[member.module]
            reads = isinstance(module, nn.Conv2d | nn.Linear) and not is_depthwise(module)
            if member.side == "in" and reads:
                mask = feature_mask(member, keep[group.name], module.weight.shape[1])
                module.weight.data[:, ~mask] = 0.0


def _output(model: nn.Module, image: Tensor) -> Tensor:
    output = model(image)
    if not isinstance(output, Tensor):
        raise ModelError(f"the network must return logits, not a {type(output).__name__}.")
    return output


def _shares(groups: Iterable[ChannelGroup], module: str, side: str) -> dict[str, int]:
    shares: dict[str, int] = {}
    for group in groups:
        for member in group.members:
            if (member.module, member.side) == (module, side):
                count = sum(run.length * run.repeat for run in member.runs)
                shares[group.name] = shares.get(group.name, 0) + count
    return shares


def _layers(model: nn.Module, seen: Profile, groups: Sequence[ChannelGroup]) -> tuple[Layer, ...]:
    modules = dict(model.named_modules())
    # A detector has no one last layer: its heads are searched.
    edges = (0,) if isinstance(model, Detector) else (0, len(seen.layers) - 1)
    layers = []
    for position, (name, macs) in enumerate(seen.layers.items()):
        module = modules[name]
        layers.append(
            Layer(
                name=name,
                kind="conv" if isinstance(module, nn.Conv2d) else "linear",
                macs=macs,
                weights=module.weight.numel(),
                in_features=width(module, "in"),
                out_features=width(module, "out"),
                inputs=_shares(groups, name, "in"),
                outputs=_shares(groups, name, "out"),
                depthwise=is_depthwise(module),
                bias=module.bias is not None or name in seen.folds.values(),
                edge=position in edges,
            )
        )
    return tuple(layers)


def _norms(model: nn.Module, seen: Profile, groups: Sequence[ChannelGroup]) -> tuple[Norm, ...]:
    norms = []
    for name in seen.norms:
        if name not in seen.folds:
            module = model.get_submodule(name)
            shares = _shares(groups, name, "out")
            floats = 1 if isinstance(module, nn.PReLU) else 2
            norms.append(Norm(name, width(module, "out"), shares, floats))
    return tuple(norms)


def _whole(model: nn.Module, seen: Profile) -> tuple[Whole, ...]:
    """Everything with parameters or MACs that is neither a layer nor a norm."""
    parameters = dict.fromkeys(seen.opaque, 0)
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        if name in seen.read and owner not in seen.layers and owner not in seen.norms:
            part = seen.opaque_part(owner)
            place = owner if part is None else part
            parameters[place] = parameters.get(place, 0) + parameter.numel()
    parts = []
    for place, number in parameters.items():
        reason = seen.opaque.get(place, f"{type(model.get_submodule(place)).__name__} parameters")
        parts.append(Whole(place, seen.opaque_macs.get(place, 0), number, reason))
    rest = seen.whole_macs - sum(seen.opaque_macs.values())
    if rest:
        parts.append(Whole("", rest, 0, "operations outside of layers"))
    return tuple(parts)
