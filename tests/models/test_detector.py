"""Detectors are networks like others: traced, pruned, quantized and counted alike."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection.ssd import SSD
from torchvision.ops import FrozenBatchNorm2d

from seernet.compression import calibrate, compress, count
from seernet.config import ModelConfig, SpaceConfig
from seernet.errors import ModelError
from seernet.models import Detector, build, trace
from seernet.models.detector import thaw
from seernet.policy import CostModel, Policy, SearchSpace
from seernet.sampling import SpreadDesign
from seernet.training import seeded

CLASSES = 3
NETWORKS = {
    "small_ssd": 64,
    "fasterrcnn_resnet18": 96,
    "torchvision:ssdlite320_mobilenet_v3_large": 320,
    "torchvision:retinanet_resnet50_fpn": 64,
}


@functools.cache
def detector(name: str) -> tuple[Detector, object]:
    """Build and trace a detector once; it is not to be changed."""
    shape = (3, NETWORKS[name], NETWORKS[name])
    arguments = {"weights_backbone": None} if "retina" in name else {}
    with seeded(0):
        model = build(ModelConfig(name=name, arguments=arguments), CLASSES, shape, "detection")
    return model.eval(), trace(model, shape, CLASSES)


def images(name: str, number: int = 2) -> torch.Tensor:
    side = NETWORKS[name]
    return torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(0))


def full_policy(graph: object) -> Policy:
    bits = {layer.name: 32 for layer in graph.layers}
    return Policy({}, bits, bits)


@pytest.mark.parametrize("name", NETWORKS)
def test_heads_are_searched_and_their_outputs_stay_whole(name):
    _, graph = detector(name)
    layers = {layer.name: layer for layer in graph.layers}
    heads = [n for n in layers if ".head." in n or "box_predictor" in n or "classification" in n]
    assert heads
    assert [layer.edge for layer in graph.layers].count(True) == 1
    assert graph.layers[0].edge
    outputs = [n for n in heads if "cls" in n or "bbox" in n or "box_predictor" in n]
    assert all(not layers[n].outputs for n in outputs)
    assert len(graph.groups) >= 5
    assert graph.maps > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_cost_model_equals_the_counter(name):
    model, graph = detector(name)
    space = SearchSpace(graph, SpaceConfig())
    cost = CostModel(space)
    design = SpreadDesign(space, (0.002, 0.05), 0)
    for policy in space.decode(design.draw_many(0, 2)):
        counted = count(compress(model, policy, graph), graph.input_shape)
        expected = cost(space.encode([policy]))
        assert counted.bops == round(expected.bops.item())
        assert counted.macs == round(expected.macs.item())
        assert counted.parameters == round(expected.parameters.item())
        assert counted.size_bytes == pytest.approx(expected.size_bytes.item(), abs=1)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_compression_boxes_and_scores_stay(name):
    model, graph = detector(name)
    network = compress(model, full_policy(graph), graph)
    with torch.no_grad():
        pairs = zip(model.detect(images(name)), network.detect(images(name)), strict=True)
    for expected, found in pairs:
        for key in ("boxes", "scores", "labels"):
            torch.testing.assert_close(found[key], expected[key])


@pytest.mark.parametrize("name", ["small_ssd", "fasterrcnn_resnet18"])
def test_compressed_detector_detects_and_learns(name):
    model, graph = detector(name)
    space = SearchSpace(graph, SpaceConfig())
    policy = space.decode(SpreadDesign(space, (0.005, 0.05), 0).draw_many(0, 1))[0]
    network = compress(model, policy, graph, images(name, 4))
    with torch.no_grad():
        assert len(network.eval().detect(images(name))) == 2
    side = float(NETWORKS[name])
    target = {"boxes": torch.tensor([[4.0, 4.0, side / 2, side / 2]]), "labels": torch.tensor([2])}
    loss, raw = network.train().losses(images(name), [target, target])
    loss.backward()
    assert bool(loss.isfinite())
    assert raw.shape[0] == 2
    missing = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_labels_start_at_zero_outside_of_the_detector():
    model, _ = detector("small_ssd")
    with torch.no_grad():
        found = model.detect(images("small_ssd"))
        inner = model.model(list(images("small_ssd")))
    assert torch.equal(found[0]["labels"] + 1, inner[0]["labels"])
    assert 0 <= int(found[0]["labels"].min()) <= int(found[0]["labels"].max()) < CLASSES


def test_costs_count_the_second_stage_at_the_number_of_proposals():
    shape = (3, 64, 64)
    macs = []
    for proposals in (50, 100):
        config = ModelConfig(name="fasterrcnn_resnet18", arguments={"proposals": proposals})
        model = build(config, CLASSES, shape, "detection").eval()
        layers = {layer.name: layer.macs for layer in trace(model, shape).layers}
        macs.append(layers["model.roi_heads.box_head.fc7"])
    assert macs == [50 * 1024 * 1024, 100 * 1024 * 1024]


def test_frozen_norms_become_ordinary_ones_with_the_same_statistics():
    with seeded(0):
        frozen = resnet18(norm_layer=FrozenBatchNorm2d).double().eval()
        for module in frozen.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 2.0)
                module.bias.normal_()
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = frozen(image)
        found = thaw(frozen).double().eval()(image)
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in frozen.modules())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "resnet20",
            "'resnet20' is for classification, and the data set is for detection; use small_ssd",
        ),
        ("torchvision:resnet18", "torchvision has no detector 'resnet18'"),
        ("torchvision:ssd300", "near: torchvision:ssd300_vgg16"),
    ],
)
def test_classifier_is_no_detector(name, says):
    with pytest.raises(ModelError, match=says):
        build(ModelConfig(name=name), CLASSES, (3, 64, 64), "detection")


def test_detector_of_one_size_says_which():
    with pytest.raises(ModelError, match=r"takes images of 320 x 320 .* set data.image_size: 320"):
        config = ModelConfig(name="torchvision:ssdlite320_mobilenet_v3_large")
        build(config, CLASSES, (3, 64, 64), "detection")


def test_network_without_the_interface_says_what_it_lacks():
    with pytest.raises(ModelError, match=r"it lacks transform, backbone, head"):
        Detector(nn.Sequential(nn.Conv2d(3, 4, 3)))


def test_detector_that_resizes_is_refused():
    with pytest.raises(ModelError, match=r"turns images of 100 x 100 pixels into 128 x 128"):
        build(ModelConfig(name="fasterrcnn_resnet18"), CLASSES, (3, 100, 100), "detection")


def test_detector_of_masks_is_refused():
    config = ModelConfig(name="torchvision:maskrcnn_resnet50_fpn")
    with pytest.raises(ModelError, match="learns masks or keypoints"):
        build(config, CLASSES, (3, 64, 64), "detection")


def test_users_detector_without_background_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from seernet.models.small_ssd import small_ssd\n"
        "def make(num_classes, in_channels, image_size):\n"
        "    return small_ssd(num_classes - 1, in_channels, image_size)\n"
    )
    with pytest.raises(ModelError, match=r"it needs num_classes \+ 1 outputs, background first"):
        build(ModelConfig(name="mine.py:make"), CLASSES, (3, 64, 64), "detection")


def test_all_of_a_detector_is_trained():
    model = thaw(resnet18())
    model.conv1.weight.requires_grad_(False)
    assert all(p.requires_grad for p in thaw(model).parameters())


def test_anchors_stay_exact_in_bfloat16():
    """Boxes that are learned must not be rounded with the arithmetic of the forward pass."""
    model, _ = detector("fasterrcnn_resnet18")
    kinds = []
    target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 40.0]]), "labels": torch.tensor([2])}
    network = copy.deepcopy(model).train()
    part = network.model.rpn.anchor_generator
    part.register_forward_hook(lambda _, __, out: kinds.extend(a.dtype for a in out))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = network.losses(images("fasterrcnn_resnet18"), [target, target])
    assert set(kinds) == {torch.float32}
    assert bool(loss.isfinite())


def test_narrow_boxes_are_learned_in_bfloat16():
    """Rounded to two pixels, this box would have no width, and the loss would be no number."""
    with seeded(0):
        config = ModelConfig(name="fasterrcnn_resnet18")
        network = build(config, CLASSES, (3, 288, 288), "detection").train()
    target = {"boxes": torch.tensor([[271.1, 260.0, 272.3, 280.0]]), "labels": torch.tensor([2])}
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = network.losses(torch.rand(1, 3, 288, 288), [target])
    assert bool(loss.isfinite())


class Narrow(SSD):
    """A detector that casts scores, and not boxes, before it chooses among them."""

    def postprocess_detections(self, head_outputs, *others):
        narrow = {**head_outputs, "cls_logits": head_outputs["cls_logits"].float()}
        return super().postprocess_detections(narrow, *others)


def test_a_choice_of_boxes_in_float32_alone_is_refused_before_anything_is_trained():
    model = copy.deepcopy(detector("small_ssd")[0])
    model.model.__class__ = Narrow
    with pytest.raises(ModelError, match=r"cannot detect in float64.*dtype=x\.dtype"):
        trace(model, (3, 64, 64), CLASSES)


def test_regions_that_are_none_are_quantized():
    model, graph = detector("fasterrcnn_resnet18")
    bits = {layer.name: 4 for layer in graph.layers}
    network = compress(model, Policy({}, bits, bits), graph, images("fasterrcnn_resnet18", 2))
    heads = network.eval().model.roi_heads
    assert len(heads.box_predictor(heads.box_head(torch.zeros(0, 256, 7, 7)))[0]) == 0


def test_weights_that_will_be_overwritten_are_not_fetched(monkeypatch):
    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    name, shape = "torchvision:ssdlite320_mobilenet_v3_large", (3, 320, 320)
    config = ModelConfig(name=name, arguments={"weights_backbone": "IMAGENET1K_V1"})
    with pytest.raises(ModelError, match="no network"):
        build(config, CLASSES, shape, "detection")
    model = build(config, CLASSES, shape, "detection", overwritten=True)
    plain = build(ModelConfig(name=name), CLASSES, shape, "detection")
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, plain)]
    assert sizes[0] > sizes[1]  # the name alone widens the backbone's tail


def test_quantized_detector_keeps_its_methods_and_calibrates_maps():
    model, graph = detector("small_ssd")
    bits = {layer.name: 4 for layer in graph.layers}
    network = compress(model, Policy({}, bits, bits), graph)
    calibrate(network, images("small_ssd", 8))
    assert isinstance(network, Detector)
    maps = [n for n, _ in network.named_modules() if n.rpartition(".")[2].startswith("map_")]
    assert len(maps) == graph.maps


def test_a_detector_of_ones_own_without_torchvision_s_transform_is_refused_by_name():
    model, _ = detector("small_ssd")
    broken = copy.deepcopy(model)
    broken.model.transform = torch.nn.Identity()
    with pytest.raises(ModelError, match=r"transform of .* lacks image_mean, image_std"):
        Detector(broken.model)
    broken.model.transform.image_mean = broken.model.transform.image_std = [0.5]
    with pytest.raises(ModelError, match="does not turn a list of images into an ImageList"):
        Detector(broken.model).check((3, NETWORKS["small_ssd"], NETWORKS["small_ssd"]), CLASSES)
