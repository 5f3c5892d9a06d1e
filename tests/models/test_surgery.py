"""Physical removal: equal to masking, and to what torch-pruning itself removes."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

from seernet.graph import ChannelGroup, NetworkGraph
from seernet.models import remove_channels

Traced = Callable[[str], tuple[nn.Module, NetworkGraph]]


def trained_looking(model: nn.Module) -> nn.Module:
    """A copy whose batch norms have differing statistics and scales."""
    model = copy.deepcopy(model).double().eval()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                assert tensor is not None
                tensor.copy_(torch.randn(len(tensor), generator=generator))
            assert module.running_var is not None
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return model


def image() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)).double()


def random_keep(groups: tuple[ChannelGroup, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    keep = {g.name: torch.rand(g.channels, generator=generator) < 0.6 for g in groups}
    for mask in keep.values():
        mask[0] = True
    return keep


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121"])
def test_removal_computes_what_zeroed_readers_compute(
    name: str, torchvision_traced: Traced
) -> None:
    model, graph = torchvision_traced(name)
    masked = trained_looking(model)
    pruned = copy.deepcopy(masked)
    keep = random_keep(graph.groups)
    remove_channels(pruned, graph.groups, keep)
    for group in graph.groups:
        for member in (m for m in group.members if m.side == "in"):
            weight = masked.get_submodule(member.module).weight
            for run in member.runs:
                features = torch.arange(run.length * run.repeat)
                gone = features[~keep[group.name][run.channel + features // run.repeat]]
                if weight.shape[1] > 1:
                    weight.data[:, run.start + gone] = 0.0  # type: ignore[index]
    torch.testing.assert_close(pruned(image()), masked(image()), rtol=1e-8, atol=1e-8)


def test_removal_equals_torch_prunings_own(torchvision_traced: Traced) -> None:
    model, graph = torchvision_traced("resnet18")
    ours = trained_looking(model)
    theirs = copy.deepcopy(ours)
    keep = random_keep(graph.groups)
    remove_channels(ours, graph.groups, keep)
    for group in graph.groups:
        dependencies = tp.DependencyGraph().build_dependency(theirs, image())
        gone = (~keep[group.name]).nonzero().flatten().tolist()
        conv = theirs.get_submodule(group.name)
        dependencies.get_pruning_group(conv, tp.prune_conv_out_channels, gone).prune()
    torch.testing.assert_close(ours(image()), theirs(image()), rtol=1e-10, atol=1e-10)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (ours, theirs, model)]
    assert sizes[0] == sizes[1] < sizes[2]


def test_groups_that_are_not_named_stay_whole(torchvision_traced: Traced) -> None:
    model, graph = torchvision_traced("resnet18")
    pruned = trained_looking(model)
    remove_channels(pruned, graph.groups, {"layer1.0.conv1": torch.arange(64) < 10})
    assert pruned.get_submodule("layer1.0.conv1").out_channels == 10
    assert pruned.get_submodule("layer1.0.bn1").num_features == 10
    assert pruned.get_submodule("layer1.0.conv2").in_channels == 10
    assert pruned.get_submodule("layer1.0.conv2").out_channels == 64


def test_frozen_parameters_stay_frozen(torchvision_traced: Traced) -> None:
    model, graph = torchvision_traced("resnet18")
    pruned = trained_looking(model)
    pruned.get_submodule("conv1").weight.requires_grad_(False)  # type: ignore[operator, union-attr]
    remove_channels(pruned, graph.groups, random_keep(graph.groups))
    frozen = [name for name, p in pruned.named_parameters() if not p.requires_grad]
    assert frozen == ["conv1.weight"]
