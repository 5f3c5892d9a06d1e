"""Layers are timed as networks run them; what is timed becomes a table that fits the network."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from seernet.config import ModelConfig, SpaceConfig
from seernet.export import Shipped
from seernet.export.clock import Clock
from seernet.export.latency import calibrate, measure, time_layers, time_networks
from seernet.export.layers import Clip, Part, Shape, clip_model, layer_model, shapes
from seernet.export.onnx_file import Kernels, kernels, session
from seernet.graph import ChannelGroup, Layer, NetworkGraph
from seernet.models import build, trace
from seernet.policy import FULL_BITS, CostModel, Policy, SearchSpace
from seernet.policy.latency import kept_features

PLAIN = Shape(8, 16, (12, 10), (3, 3), (2, 1), (1, 0), (1, 1))
DEEP = Shape(8, 8, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), groups=8)
LINEAR = Shape(20, 10, (3,))


class Small(nn.Module):
    """A convolution, a depthwise one that is called twice, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.deep(torch.relu(self.first(x))))
        return self.head(torch.relu(self.deep(x[:, :, ::2, ::2])).mean((2, 3)))


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, NetworkGraph]:
    torch.manual_seed(0)
    model = Small().eval()
    return model, trace(model, (3, 8, 8), 2)


@pytest.mark.parametrize("wide", [False, True], ids=["int8", "uint8"])
@pytest.mark.parametrize("shape", [PLAIN, DEEP, LINEAR], ids=["plain", "deep", "linear"])
def test_a_layer_runs_in_one_integer_kernel_for_each_copy(shape, wide, tmp_path):
    model = layer_model(replace(shape, wide=wide), 3)
    kinds = {t.data_type for t in model.graph.initializer if t.name.startswith("weight_0")}
    assert kinds == {onnx.TensorProto.UINT8 if wide else onnx.TensorProto.INT8}
    onnx.checker.check_model(model, full_check=True)
    run = session(model.SerializeToString(), 1)
    image = np.zeros(shape.given, dtype=np.uint8)
    outputs = run.run(None, {"input": image})
    assert len(outputs) == 3
    assert outputs[0].shape[-1] == shape.outputs
    if shape.kernel:
        path = tmp_path / "layer.onnx"
        onnx.save(model, path)
        assert kernels(path) == Kernels(3, 0, 0, 0)
        assert outputs[0].dtype == np.uint8


def test_clips_run_on_bytes_each_for_itself(tmp_path):
    model = clip_model(Clip((1, 4, 6, 3)), 3)
    onnx.checker.check_model(model, full_check=True)
    outputs = session(model.SerializeToString(), 1).run(
        None, {"input": np.full((1, 4, 6, 3), 255, dtype=np.uint8)}
    )
    assert [int(output.max()) for output in outputs] == [15, 16, 17]
    assert {output.dtype for output in outputs} == {np.dtype(np.uint8)}


def test_output_has_the_size_that_torch_gives():
    run = session(layer_model(PLAIN, 1).SerializeToString(), 1)
    (found,) = run.run(None, {"input": np.zeros(PLAIN.given, dtype=np.uint8)})
    expected = nn.Conv2d(8, 16, 3, (2, 1), (1, 0))(torch.zeros(1, 8, 12, 10))
    assert found.shape == tuple(expected.permute(0, 2, 3, 1).shape)


def test_shapes_are_those_of_each_call(small):
    model, graph = small
    assert shapes(model, graph) == {
        "first": [Shape(3, 8, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1))],
        "deep": [
            Shape(8, 8, size, (3, 3), (1, 1), (1, 1), (1, 1), groups=8) for size in ((8, 8), (4, 4))
        ],
        "head": [Shape(8, 2, (1,))],
    }


def test_a_depthwise_layer_is_pruned_at_both_ends():
    assert DEEP.pruned(8, 2) == Shape(2, 2, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), groups=2)
    assert PLAIN.pruned(4, 6).groups == 1


def test_kept_features_are_those_that_policies_reach():
    def layer(inputs: dict[str, int], features: int) -> Layer:
        return Layer("x", "conv", 1, 1, features, 4, inputs, {}, False, True, False)

    groups = (ChannelGroup("a", 8, ()), ChannelGroup("b", 16, ()))
    graph = NetworkGraph((3, 4, 4), (layer({}, 3),), groups, (), (), {})
    space = SearchSpace(graph, SpaceConfig(max_pruning_ratio=0.75, pruning_step=0.25))
    assert kept_features(space, {}, 3) == (3,)
    assert kept_features(space, {"a": 8}, 8) == (2, 4, 6, 8)
    assert kept_features(space, {"a": 32}, 40) == (16, 24, 32, 40)  # 4 features a channel, 8 fixed
    assert kept_features(space, {"a": 8, "b": 16}, 24) == (6, 12, 18, 24)
    fine = SearchSpace(graph, SpaceConfig(max_pruning_ratio=0.9, pruning_step=0.01))
    found = kept_features(fine, {"b": 16}, 16)
    assert found[-1] == 16 and len(found) <= 12


def test_equal_shapes_are_timed_once_and_calls_add_up(small):
    model, graph = small
    space = SearchSpace(graph, SpaceConfig(max_pruning_ratio=0.5, pruning_step=0.5))
    timed: list[Part] = []

    def timer(one: Part) -> float:
        timed.append(one)
        if isinstance(one, Clip):
            return float(np.prod(one.given))
        return float(one.inputs * one.outputs * np.prod(one.size)) * (3 if one.wide else 1)

    found = time_layers(shapes(model, graph), space, timer)
    shapes_timed, clips_timed = 2 * (2 + 2 * 2 + 2), 1 + 2 + 1
    assert len(timed) == len(set(timed)) == shapes_timed + clips_timed
    assert found["first"].macs == 3 * 8 * 9 * 64
    assert found["first"].ms == ((3 * 4 * 64.0, 3 * 8 * 64.0),)
    assert found["deep"].inputs == (8,)
    assert found["deep"].ms == ((16.0 * 80, 64.0 * 80),)
    assert found["head"].ms == ((4 * 2.0,), (8 * 2.0,))
    assert found["head"].wide_ms == ((3 * 4 * 2.0,), (3 * 8 * 2.0,))
    assert found["deep"].clip_ms == 8 * (8 * 8 + 4 * 4)


def test_calibration_finds_what_networks_add_to_their_layers():
    layers, values = np.array([1.0, 2.0, 4.0, 3.0]), np.array([10.0, 80.0, 20.0, 50.0])
    found = calibrate(layers, values, 0.5 + 1.2 * layers + 0.01 * values)
    assert found == pytest.approx((0.5, 1.2, 0.01))
    noisy = calibrate(layers, values, 1.2 * layers - 0.3)
    assert min(noisy) >= 0.0


class Keeping(Clock):
    """Keeps the files that it times."""

    def __init__(self) -> None:
        self.files: list[bytes] = []

    def network(self, file: bytes, size: tuple[int, ...]) -> float:
        run, seen = session(file, 1), np.zeros(size, dtype=np.uint8)
        assert [len(value) for value in run.run(None, {"image": seen})] == [1, 1]
        self.files.append(file)
        return 1.0


def test_of_a_detector_the_choice_among_boxes_is_not_timed():
    shape, names = (3, 64, 64), ("a", "b")
    config = ModelConfig(name="small_ssd", arguments={"width": 4})
    network = build(config, len(names), shape, "detection").eval()
    graph = trace(network, shape, len(names))
    full = dict.fromkeys((layer.name for layer in graph.layers), FULL_BITS)
    policy = Policy({group.name: 0.0 for group in graph.groups}, full, full)
    shipped = Shipped(config, policy, graph, "detection", names, (0.0,) * 3, (1.0,) * 3)
    clock = Keeping()
    assert time_networks([network], shipped, clock) == [1.0]
    (file,) = set(clock.files)
    kinds = {node.op_type for node in onnx.load_from_string(file).graph.node}
    assert "Conv" in kinds and "NonMaxSuppression" not in kinds


def test_networks_take_turns_and_each_has_its_median(monkeypatch):
    class Turns(Clock):
        def __init__(self) -> None:
            self.files: list[bytes] = []

        def network(self, file: bytes, size: tuple[int, ...]) -> float:
            self.files.append(file)
            return float([9, 1, 2, 5, 4, 3][len(self.files) - 1])

    monkeypatch.setattr("seernet.export.latency.ROUNDS", 3)
    monkeypatch.setattr(
        "seernet.export.latency.write_onnx",
        lambda path, network, *_, **__: path.write_bytes(str(network.weight.numel()).encode()),
    )
    full = Policy({}, {}, {})
    graph = NetworkGraph((1, 2, 2), (), (), (), (), {})
    shipped = Shipped(
        ModelConfig(name="resnet20"), full, graph, "classification", ("a",), (0.5,), (0.5,)
    )
    clock = Turns()
    assert time_networks([nn.Linear(1, 1), nn.Linear(2, 1)], shipped, clock) == [4.0, 3.0]
    assert clock.files == [b"1", b"2"] * 3


def busy(clock: Clock, slowness: list[float]) -> None:
    """Let the reference seem slower at some of the moments that it is looked at."""
    clock._slowness = lambda: slowness.pop(0)  # type: ignore[method-assign]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr("seernet.export.clock.WARM_UP", 0.0)
    return Clock(1)


def runs(*milliseconds: float) -> Callable[[Callable[[], None], float], tuple[float, float]]:
    """What timing gives, try by try, without spread."""
    left = list(milliseconds)
    return lambda run, seconds: (left.pop(0), 1.0)


def test_what_was_disturbed_is_timed_again(clock, monkeypatch):
    busy(clock, [1.0, 2.0, 2.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr("seernet.export.clock._timed", runs(9.0, 8.0, 5.0))
    assert clock(lambda: None, 0.0) == 5.0
    assert clock.disturbed == 0


def test_a_machine_that_stays_busy_gives_its_best_try_and_is_counted(clock, monkeypatch):
    monkeypatch.setattr("seernet.export.clock.PATIENCE", 0.0)
    busy(clock, [2.0, 2.0])
    monkeypatch.setattr("seernet.export.clock._timed", runs(9.0))
    assert clock(lambda: None, 0.0) == 9.0
    assert clock.disturbed == 1


def test_a_network_measured_here_has_a_table(small, monkeypatch):
    monkeypatch.setattr("seernet.export.clock.PATIENCE", 0.2)
    monkeypatch.setattr("seernet.export.latency.NETWORKS", 3)
    model, graph = small
    space = SearchSpace(graph, SpaceConfig(max_pruning_ratio=0.5, pruning_step=0.5))
    full = dict.fromkeys((layer.name for layer in graph.layers), FULL_BITS)
    policy = Policy({group.name: 0.0 for group in graph.groups}, full, full)
    config = ModelConfig(name="resnet20")
    shipped = Shipped(config, policy, graph, "classification", ("a", "b"), (0.5,) * 3, (0.5,) * 3)
    table = measure(model, shipped, space, threads=1)
    table.check(space)
    assert table.baseline_ms > 0.0
    found = CostModel(space, table)(torch.rand(5, space.dimension, dtype=torch.float64)).latency_ms
    assert bool((found > 0.0).all())
    assert "ONNX Runtime" in table.target and table.target.endswith("1 thread")
