"""Tracing: what is found, what stays whole and why, and that no wrong removal gets through."""

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from seernet.errors import ModelError
from seernet.graph import NetworkGraph
from seernet.models import trace
from seernet.models.resnet20 import resnet20

SHAPE = (3, 32, 32)
Around = Callable[..., nn.Module]


class Map(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def macs(graph: NetworkGraph) -> int:
    return sum(x.macs for x in graph.layers) + sum(x.macs for x in graph.whole)


def test_plain_network_by_hand(around: Around) -> None:
    graph = trace(around(nn.BatchNorm2d(8)), SHAPE)
    first, second, last = graph.layers
    assert (first.macs, second.macs, last.macs) == (3 * 8 * 9 * 1024, 8 * 6 * 9 * 1024, 60)
    assert [x.edge for x in graph.layers] == [True, False, True]
    assert [g.name for g in graph.groups] == ["0", "2"]
    assert first.outputs == second.inputs == {"0": 8}
    assert last.inputs == {"2": 6}
    assert graph.norms == graph.whole == ()
    assert graph.kept == {}


def test_flattened_features_belong_to_their_channel() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(15), nn.Flatten(), nn.Linear(16, 10))
    (group,) = trace(model, SHAPE).groups
    (run,) = next(m for m in group.members if m.module == "3").runs
    assert (run.start, run.length, run.channel, run.repeat) == (0, 4, 0, 4)


class Casts(nn.Module):
    """A network that insists on float32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.float()).mean((2, 3))


def test_a_network_of_float32_only_is_told_so() -> None:
    with pytest.raises(ModelError, match=r"Casts computes in float32 only.*conv\.weight\.dtype"):
        trace(Casts(), SHAPE)


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(ModelError, match=r"cannot be copied and perturbed.*run lazy layers once"):
        trace(model, SHAPE)


def test_a_part_that_is_called_like_an_operation_is_none() -> None:
    def called(name: str) -> int:
        parts = [("conv", nn.Conv2d(3, 4, 3)), (name, nn.SiLU()), ("next", nn.Conv2d(4, 4, 3))]
        parts += [
            ("pool", nn.AdaptiveAvgPool2d(1)),
            ("flat", nn.Flatten()),
            ("fc", nn.Linear(4, 2)),
        ]
        return trace(nn.Sequential(OrderedDict(parts)), SHAPE).maps

    assert called("relu") == called("act") == called("add")


def test_tracing_leaves_the_network_alone(around: Around) -> None:
    model = around(nn.BatchNorm2d(8)).train()
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trace(model, SHAPE)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert not model[1].training
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_resnet18_couples_each_stage(torchvision_traced: Callable[..., object]) -> None:
    _, graph = torchvision_traced("resnet18")  # type: ignore[misc]
    # four stages, tied by their adds, and one inner group in each of eight blocks
    assert sorted(g.channels for g in graph.groups) == [64] * 3 + [128] * 3 + [256] * 3 + [512] * 3
    stem = next(g for g in graph.groups if g.name == "conv1")
    assert {m.module for m in stem.members if m.side == "out"} >= {
        "conv1",
        "layer1.0.conv2",
        "layer1.1.conv2",
    }


def test_grouped_convolutions_are_kept_and_named(around: Around) -> None:
    graph = trace(around(nn.Conv2d(8, 8, 3, padding=1, groups=2)), SHAPE)
    assert [g.name for g in graph.groups] == ["2"]
    assert graph.kept["0"] == "shared with the grouped convolution 1"


def test_depthwise_convolution_joins_its_group(around: Around) -> None:
    graph = trace(around(nn.Conv2d(8, 8, 3, padding=1, groups=8)), SHAPE)
    deep = graph.layers[1]
    assert deep.depthwise
    assert deep.inputs == deep.outputs == {"0": 8}
    assert deep.macs == 8 * 9 * 1024


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.softmax(dim=1),
        lambda x: x / x.norm(dim=1, keepdim=True),
        lambda x: x - x.mean(dim=1, keepdim=True),
        lambda x: F.group_norm(x, 2),
        lambda x: F.layer_norm(x, x.shape[1:]),
        lambda x: x.flip(dims=(1,)),
        lambda x: x + x[:, :1],
        lambda x: x * (x.flatten(2) @ x.flatten(2).mT).std(),
    ],
    ids=["softmax", "norm", "center", "group_norm", "layer_norm", "flip", "broadcast", "gram"],
)
def test_channels_that_meet_outside_of_layers_are_refused(
    around: Around, function: Callable[[Tensor], Tensor]
) -> None:
    graph = trace(around(Map(function)), SHAPE)
    assert "0" not in {group.name for group in graph.groups}
    assert graph.kept
    assert "2" in {group.name for group in graph.groups} or "all" in graph.kept


def test_norm_with_parameters_over_channels_is_refused(around: Around) -> None:
    graph = trace(around(nn.GroupNorm(2, 8)), SHAPE)
    assert graph.kept["0"] == "shared with 1 (GroupNorm)"
    assert [(w.name, w.parameters) for w in graph.whole] == [("1", 16)]


def test_hard_coded_view_is_kept_with_its_reason() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(3, 4, 3, padding=1)
            self.conv = nn.Conv2d(4, 8, 3, padding=1)
            self.fc = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(self.inner(x)).mean(dim=(2, 3))
            return self.fc(x.view(1, 8))

    graph = trace(Fixed(), SHAPE)
    assert [g.name for g in graph.groups] == ["inner"]
    assert "its removal breaks the network" in graph.kept["conv"]


def test_branch_that_starts_at_zero_hides_no_wrong_removal() -> None:
    class Zeroed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.branch = nn.Conv2d(8, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            nn.init.zeros_(self.norm.weight)
            self.fc = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            x = x + self.norm(self.branch(x.softmax(dim=1)))
            return self.fc(x.mean(dim=(2, 3)))

    graph = trace(Zeroed(), SHAPE)
    assert graph.groups == ()
    assert "changes what the network computes" in graph.kept["conv"]


def test_units_that_are_dead_for_an_image_hide_no_wrong_removal() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.dead = nn.Conv2d(8, 8, 3, padding=1)
            nn.init.constant_(self.dead.bias, -1000.0)
            self.fc = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).softmax(dim=1)
            return self.fc(self.dead(x).relu().mean(dim=(2, 3)))

    assert "changes what the network computes" in trace(Dead(), SHAPE).kept["conv"]


@pytest.mark.parametrize("slopes", [1, 8])
def test_prelu_is_counted_and_pruned(around: Around, slopes: int) -> None:
    graph = trace(around(nn.PReLU(slopes)), SHAPE)
    (norm,) = graph.norms
    assert (norm.features, norm.floats) == (slopes, 1)
    assert norm.inputs == ({"0": 8} if slopes == 8 else {})
    assert "0" in {group.name for group in graph.groups}


def test_norm_folds_only_into_a_layer_of_its_own(around: Around) -> None:
    class Both(nn.Module):  # the convolution's output is read without the norm, too
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + x

    assert trace(around(nn.BatchNorm2d(8)), SHAPE).norms == ()
    (norm,) = trace(around(Both()), SHAPE).norms
    assert (norm.name, norm.features, norm.floats) == ("1.norm", 8, 2)
    changed_in_place = nn.Sequential(nn.ReLU(inplace=True), nn.BatchNorm2d(8))
    assert [n.name for n in trace(around(changed_in_place), SHAPE).norms] == ["1.1"]


def test_network_whose_outputs_are_not_finite_is_refused(around: Around) -> None:
    class Logarithm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (-x.square() - 1.0).log()

    with pytest.raises(ModelError, match="not finite"):
        trace(around(Logarithm()), SHAPE)


def test_unused_layer_costs_nothing(around: Around) -> None:
    model = around(nn.ReLU())

    class Headed(nn.Module):
        def __init__(self, head: bool) -> None:
            super().__init__()
            self.body = model
            if head:
                self.head = nn.Linear(100, 100)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    assert trace(Headed(True), SHAPE) == trace(Headed(False), SHAPE)


def test_convolution_of_its_own_kind_stays_whole(around: Around) -> None:
    class Standardized(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
            return self._conv_forward(input, weight, self.bias)

    graph = trace(around(Standardized(8, 8, 3, padding=1)), SHAPE)
    assert [x.name for x in graph.layers] == ["0", "2", "6"]
    (whole,) = graph.whole
    assert (whole.name, whole.macs, whole.parameters) == ("1", 8 * 8 * 9 * 1024, 8 * 8 * 9 + 8)
    assert "Standardized" in whole.reason
    assert set(graph.kept) <= {"0", "1"}
    assert [g.name for g in graph.groups] == ["2"]


def test_computed_weights_stay_whole(around: Around) -> None:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
    graph = trace(around(conv), SHAPE)
    assert [x.name for x in graph.layers] == ["0", "2", "6"]
    assert [w.name for w in graph.whole] == ["1"]
    assert "0" not in {group.name for group in graph.groups}


def test_transformer_keeps_attention_whole_and_counts_it() -> None:
    model = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32,
        num_classes=10,
    )  # fmt: skip
    graph = trace(model, SHAPE)
    attention = [w for w in graph.whole if w.name.endswith("self_attention")]
    # 17 tokens of 16: projections 17*16*48 and 17*16*16, two products 2*17*17*16
    assert [w.macs for w in attention] == [17 * 16 * 64 + 2 * 17 * 17 * 16] * 2
    assert [w.parameters for w in attention] == [4 * 16 * 16 + 4 * 16] * 2
    assert all("MultiheadAttention" in w.reason for w in attention)
    assert [g.name.split(".")[-2:] for g in graph.groups] == [["mlp", "0"]] * 2
    assert "conv_proj" in graph.kept


def test_swin_keeps_attention_whole_and_counts_it() -> None:
    model = torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=[4, 4],
        num_classes=10,
    )  # fmt: skip
    graph = trace(model, SHAPE)
    attention = [w for w in graph.whole if w.name.endswith("attn")]
    assert len(attention) == 2
    # 64 tokens of 8 in windows of 16: projections 64*8*32, two products 2*64*16*8
    assert attention[0].macs == 64 * 8 * 32 + 2 * 64 * 16 * 8
    assert {g.name.split(".")[-2] for g in graph.groups} == {"mlp"}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121"])
def test_macs_match_torch_flop_counter(
    name: str, torchvision_traced: Callable[..., object]
) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model, graph = torchvision_traced(name)  # type: ignore[misc]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *SHAPE))
    assert macs(graph) == counter.get_total_flops() / 2


def test_wrong_image_is_refused_with_the_remedy(around: Around) -> None:
    with pytest.raises(ModelError, match=r"shape \(1, 8, 8\).*data\.channels"):
        trace(around(nn.ReLU()), (1, 8, 8))


def test_network_without_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="no convolution or linear layer"):
        trace(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), SHAPE)


def test_network_that_returns_a_tuple_is_refused(around: Around) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = around(nn.ReLU())

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.body(x), x

    with pytest.raises(ModelError, match="logits, not a tuple"):
        trace(Pair(), SHAPE)


def test_wrong_number_of_outputs_is_refused() -> None:
    with pytest.raises(ModelError, match=r"shape \(1, 10\).*3 classes.*num_classes"):
        trace(resnet20(10, width=4), (3, 16, 16), 3)
