"""`model.onnx` holds the network's integers, runs in integer kernels, and decides as it does."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from seernet.compression import QuantConv2d, compress
from seernet.config import ModelConfig
from seernet.errors import ExportError
from seernet.export import Shipped
from seernet.export.detector import DecodedDetector
from seernet.export.onnx_file import INPUT, Kernels, kernels, session, write_onnx
from seernet.export.runtime import RuntimeNetwork
from seernet.graph import NetworkGraph
from seernet.models import Detector, build, trace
from seernet.policy import Policy
from seernet.training import seeded

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


class Bounded(nn.Module):
    """Bounded ReLUs, pooling before a layer, a concatenation, a depthwise layer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.pool = nn.MaxPool2d(2)
        self.wide = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6())
        self.narrow = nn.Conv2d(8, 4, 1)
        self.last = nn.Sequential(nn.Conv2d(12, 8, 1), nn.Hardswish())
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        x = self.last(torch.cat([self.wide(x), self.narrow(x)], 1))
        return self.head(x.mean((2, 3)))


def pixels(count: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    middle, spread = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return (images.float() / 255 - middle) / spread


def make(model: nn.Module, graph: NetworkGraph, bits: int, task: str = "classification"):
    """A compressed network and what it is."""
    mean, std = (MEAN, STD) if task == "classification" else ((0.0,) * 3, (1.0,) * 3)
    widths = {layer.name: 8 if layer.edge else bits for layer in graph.layers}
    policy = Policy({group.name: 0.25 for group in graph.groups}, widths, widths)
    images = normalised(pixels(32, graph.input_shape[1]), mean, std)
    network = compress(model, policy, graph, images).eval()
    config = ModelConfig(name="resnet20")
    return network, Shipped(config, policy, graph, task, ("a", "b", "c", "d"), mean, std)


@pytest.fixture(scope="module", params=[8, 3])
def residual(request, tmp_path_factory):
    """A residual network at eight and at three bits, and its file."""
    shape = (3, 16, 16)
    with seeded(0):
        model = build(ModelConfig(name="resnet20", arguments={"width": 8}), 4, shape).eval()
    network, shipped = make(model, trace(model, shape, 4), request.param)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(path, network, shipped, {"budget": "small"})
    return network, shipped, path, request.param


def test_every_convolution_and_add_runs_in_integers(residual):
    *_, path, _ = residual
    assert kernels(path) == Kernels(21, 0, 9, 0)


def test_outputs_are_those_of_the_network(residual):
    network, shipped, path, bits = residual
    images = normalised(pixels(64, 16), MEAN, STD)
    with torch.no_grad():
        expected, found = network(images), RuntimeNetwork(path, shipped)(images)
    # An untrained network of three bits is all thresholds: one value next to one moves many.
    allowed = 0.1 if bits == 8 else 0.7
    assert float((found - expected).abs().mean()) < allowed * float(expected.std())


def test_integers_in_the_file_are_the_network_s(residual):
    network, _, path, _ = residual
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    layers = {n: m for n, m in network.named_modules() if isinstance(m, QuantConv2d)}
    for name, layer in layers.items():
        stored, zero = (
            torch.from_numpy(tensors[f"network.{name}.weight_{part}"].copy())
            for part in ("integers", "zero")
        )
        stored = stored.to(torch.int16) - int(zero[0])
        expected = layer.weight_quantizer.integers(layer.weight.detach()).to(torch.int16)
        stretch = stored.abs().max() // expected.abs().max()
        assert torch.equal(stored, stretch * expected), name  # norms have positive factors here
        # Two products with the widest inputs fit 16 bits, or weights are uint8.
        most = 2**layer.act_quantizer.bits - 1
        assert zero[0] == 128 or 2 * most * int(stored.abs().max()) < 2**15


def test_any_number_of_images_and_what_the_file_says_of_itself(residual):
    *_, path, _ = residual
    run = session(path, 1)
    for count in (1, 5):
        images = pixels(count, 16).permute(0, 2, 3, 1).numpy()
        assert run.run(None, {INPUT: images})[0].shape == (count, 4)
    found = run.get_modelmeta().custom_metadata_map
    assert json.loads(found["classes"]) == ["a", "b", "c", "d"]
    assert found["budget"] == "small"
    assert set(json.loads(found["policy"])) == {"pruning_ratio", "weight_bits", "act_bits"}


def test_bounded_activations_pools_and_gates_run_in_integers(tmp_path):
    with seeded(1):
        model = Bounded(4).eval()
    with torch.no_grad():
        model.stem[0].weight.mul_(20.0)  # so that the bound of the ReLU counts
    network, shipped = make(model, trace(model, (3, 16, 16), 4), 6)
    path = tmp_path / "model.onnx"
    write_onnx(path, network, shipped, {})
    assert kernels(path) == Kernels(4, 0, 0, 0)
    images = normalised(pixels(64, 16), MEAN, STD)
    with torch.no_grad():
        expected, found = network(images), RuntimeNetwork(path, shipped)(images)
    assert float((found - expected).abs().mean()) < 0.05 * float(expected.std())


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    shape = (3, 64, 64)
    with seeded(0):
        model = build(ModelConfig(name="small_ssd", arguments={"width": 8}), 4, shape, "detection")
    model.eval()
    network, shipped = make(model, trace(model, shape, 4), 8, "detection")
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(path, network, shipped, {})
    return network, shipped, path


def test_detector_s_boxes_and_scores_are_those_of_the_network(detector):
    network, shipped, path = detector
    images = pixels(3, 64)
    boxes, scores, selected = session(path).run(
        None, {INPUT: images.permute(0, 2, 3, 1).contiguous().numpy()}
    )
    with torch.no_grad():
        decoded = DecodedDetector(network, (3, 64, 64))
        expected = decoded(normalised(images, shipped.mean, shipped.std))
    assert np.abs(boxes - expected[0].numpy()).mean() < 1.0  # pixels
    assert np.abs(scores - expected[1].numpy()).mean() < 0.02
    assert selected.shape[1] == 3
    assert scores.shape == (3, 4, boxes.shape[1])


def test_detector_s_choice_is_torchvision_s(detector):
    """On its own boxes and scores, so that rounding plays no part."""
    network, shipped, path = detector
    images = normalised(pixels(3, 64), shipped.mean, shipped.std)
    runtime = RuntimeNetwork(path, shipped)
    boxes, scores, _ = runtime._run(images)
    model = network.model
    for index, found in enumerate(runtime.detect(images)):
        best = scores[index].flatten().argsort(descending=True)[0]
        label, place = divmod(int(best), boxes.shape[1])
        assert torch.equal(found["boxes"][0], boxes[index, place])
        assert found["labels"][0] == label
        assert len(found["scores"]) <= model.detections_per_img
        assert bool((found["scores"] > model.score_thresh).all())
        assert bool((found["scores"].diff() <= 0).all())


class Pyramid(nn.Module):
    """A backbone of two levels, as torchvision's RetinaNet takes one."""

    out_channels = 8

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=8, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.first(x).relu()
        return {"0": fine, "1": self.second(fine).relu()}


@pytest.fixture(params=["SSD", "RetinaNet"])
def many_boxes(request):
    """A detector in float32, untrained, that finds hundreds of boxes in every image."""
    with seeded(0), torch.no_grad():
        if request.param == "SSD":
            config = ModelConfig(name="small_ssd", arguments={"width": 8})
            model = build(config, 4, (3, 64, 64), "detection")
        else:
            sizes = AnchorGenerator(((8, 12), (24, 32)), ((0.5, 1.0, 2.0),) * 2)
            model = Detector(RetinaNet(Pyramid(), 5, 64, 64, anchor_generator=sizes))
        for name, parameter in model.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(parameter, std=0.2)
        if request.param == "RetinaNet":  # which counts background as a class that it may find
            model.model.head.classification_head.cls_logits.bias[::5] = -20.0
    model.model.score_thresh = 0.01
    return model.eval()


def rows_of(found):
    """Boxes of one image in pixels, and classes so far apart that none is taken for another."""
    return torch.cat([found["boxes"].double(), 1000.0 * found["labels"][:, None]], dim=1)


@pytest.mark.parametrize(("candidates", "detections"), [(400, 300), (20, 300), (20, 9)])
def test_detector_s_choice_among_many_boxes_is_torchvision_s(
    many_boxes, candidates, detections, tmp_path
):
    model = many_boxes.model
    model.topk_candidates, model.detections_per_img = candidates, detections
    graph = trace(many_boxes, (3, 64, 64), 4)
    mean, std = (0.0,) * 3, (1.0,) * 3
    task = "detection"
    nothing = Policy({}, {}, {})
    shipped = Shipped(
        ModelConfig(name="resnet20"), nothing, graph, task, ("a", "b", "c", "d"), mean, std
    )
    path = tmp_path / "model.onnx"
    write_onnx(path, many_boxes, shipped, {})
    images = normalised(pixels(3, 64), mean, std)
    with torch.no_grad():
        both = many_boxes.detect(images), RuntimeNetwork(path, shipped).detect(images)
    for expected, found in zip(*both, strict=True):
        assert len(found["labels"]) == len(expected["labels"]) > 5
        torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-4, atol=1e-5)
        off = torch.cdist(rows_of(found), rows_of(expected))  # in any order: scores may be equal
        assert float(off.amin(dim=0).max()) < 0.1 > float(off.amin(dim=1).max())


def test_two_stage_detector_is_refused_with_a_way_out():
    model = build(ModelConfig(name="fasterrcnn_resnet18"), 4, (3, 64, 64), "detection")
    with pytest.raises(ExportError, match=r"only SSD and RetinaNet can.*export\.onnx: false"):
        DecodedDetector(model, (3, 64, 64))


class Normalized(nn.Module):
    """What `F.normalize` leaves in a file is a clip with a lower bound alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.normalize(self.first(x).relu())
        return self.head(self.second(x).clamp(min=0.0).mean((2, 3)))


def test_clips_without_an_upper_bound_are_exported(tmp_path):
    with seeded(0):
        model = Normalized().eval()
    network, shipped = make(model, trace(model, (3, 16, 16), 4), 8)
    path = tmp_path / "model.onnx"
    write_onnx(path, network, shipped, {})
    images = normalised(pixels(8, 16), MEAN, STD)
    with torch.no_grad():
        expected, found = network(images), RuntimeNetwork(path, shipped)(images)
    assert float((found - expected).abs().mean()) < 0.1 * float(expected.std())
