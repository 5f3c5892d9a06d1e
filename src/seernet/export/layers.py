"""A network's layers, each as a small network of its own that integer runtimes run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from seernet.evaluation.settling import MIDDLE
from seernet.export.integer import OPSET
from seernet.graph import NetworkGraph


@dataclass(frozen=True)
class Shape:
    """One call of a layer on one image: all that its time depends on.

    Attributes:
        inputs: Input channels or features.
        outputs: Output channels or features.
        size: Height and width of the input; of a linear layer, its rows.
        kernel: Height and width of the kernel; empty for a linear layer.
        stride: Of the kernel.
        padding: Above and below, left and right.
        dilation: Of the kernel.
        groups: Of the convolution.
        wide: Whether weights are uint8, as where they and the input have 8 bits (`integer`).
    """

    inputs: int
    outputs: int
    size: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    wide: bool = False

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved by itself, so that both counts are one."""
        return self.groups > 1 and self.groups == self.inputs

    @property
    def given(self) -> tuple[int, ...]:
        """Shape of the input, channels last."""
        return (1, *self.size, self.inputs) if self.kernel else (*self.size, self.inputs)

    def pruned(self, inputs: int, outputs: int) -> Shape:
        """The same layer with fewer channels."""
        groups = outputs if self.depthwise else self.groups
        inputs = groups if self.depthwise else inputs
        return replace(self, inputs=inputs, outputs=outputs, groups=groups)


@dataclass(frozen=True)
class Clip:
    """A clip of integers, as of a layer's input to fewer than 8 bits.

    Attributes:
        given: Shape of the input, channels last.
    """

    given: tuple[int, ...]


Part = Shape | Clip


def shapes(network: nn.Module, graph: NetworkGraph) -> dict[str, list[Shape]]:
    """The calls of each layer for one image, in float32."""
    found: dict[str, list[Shape]] = {layer.name: [] for layer in graph.layers}

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            geometry = (module.kernel_size, module.stride, _padding(module), module.dilation)
            size = tuple(inputs[0].shape[-2:])
            ends = (module.in_channels, module.out_channels)
            found[name].append(Shape(*ends, size, *geometry, module.groups))  # type: ignore[arg-type]
        elif isinstance(module, nn.Linear):
            rows = inputs[0].numel() // module.in_features
            found[name].append(Shape(module.in_features, module.out_features, (rows,)))

    handles = [
        network.get_submodule(name).register_forward_hook(partial(note, name)) for name in found
    ]
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *graph.input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _padding(module: nn.Conv2d) -> tuple[int, ...]:
    if isinstance(module.padding, str):
        spans = zip(module.kernel_size, module.dilation, strict=True)
        same = tuple((size - 1) * dilation // 2 for size, dilation in spans)
        return same if module.padding == "same" else (0, 0)
    return tuple(module.padding)


def layer_model(shape: Shape, copies: int) -> onnx.ModelProto:
    """Copies of a layer on one input, bytes in and bytes out, as they lie inside a network."""
    draw = np.random.default_rng(0)
    tensors, nodes, outputs = [], [], []

    def constant(name: str, value: Any) -> str:
        tensors.append(numpy_helper.from_array(value, name))
        return name

    def add(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    scale = constant("scale", np.float32(0.02))
    zero = constant("zero", np.uint8(0))
    scales = np.full(shape.outputs, 0.02, np.float32)
    weight_scale = constant("weight_scale", scales)
    middle, kind = (MIDDLE, np.uint8) if shape.wide else (0, np.int8)
    weight_zero = constant("weight_zero", np.full(shape.outputs, middle, kind))
    bias_scale = constant("bias_scale", scales * np.float32(0.02))
    inner = "input"
    if shape.kernel:  # kernels keep channels last: so the network around them gives and takes them
        inner = add("Transpose", [inner], "channels_first", perm=[0, 3, 1, 2])
    x = add("DequantizeLinear", [inner, scale, zero], "x")
    weights = (shape.outputs, shape.inputs // shape.groups, *shape.kernel)
    for number in range(copies):
        integers = (draw.integers(-7, 8, weights) + middle).astype(kind)
        names = [constant(f"weight_{number}", integers), weight_scale, weight_zero]
        weight = add("DequantizeLinear", names, f"w_{number}", axis=0)
        names = [constant(f"bias_{number}", np.zeros(shape.outputs, np.int32)), bias_scale]
        bias = add("DequantizeLinear", names, f"b_{number}", axis=0)
        if not shape.kernel:
            outputs.append(add("Gemm", [x, weight, bias], f"output_{number}", transB=1))
            continue
        y = add(
            "Conv",
            [x, weight, bias],
            f"y_{number}",
            kernel_shape=shape.kernel,
            strides=shape.stride,
            pads=[*shape.padding, *shape.padding],
            dilations=shape.dilation,
            group=shape.groups,
        )
        y = add("QuantizeLinear", [y, scale, zero], f"q_{number}")
        outputs.append(add("Transpose", [y], f"output_{number}", perm=[0, 2, 3, 1]))
    given_back = TensorProto.UINT8 if shape.kernel else TensorProto.FLOAT
    given = helper.make_tensor_value_info("input", TensorProto.UINT8, shape.given)
    rank = len(shape.given)
    taken = [helper.make_tensor_value_info(name, given_back, [None] * rank) for name in outputs]
    graph = helper.make_graph(nodes, "layer", [given], taken, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def clip_model(clip: Clip, copies: int) -> onnx.ModelProto:
    """Copies of a clip on one input, bytes in and bytes out."""
    names = [f"output_{number}" for number in range(copies)]
    # Upper ends that differ: the runtime computes what is the same but once.
    tensors = [numpy_helper.from_array(np.array(0, np.uint8), "least")]
    tensors += [
        numpy_helper.from_array(np.array(15 + i, np.uint8), f"most_{i}") for i in range(copies)
    ]
    nodes = [
        helper.make_node("Clip", ["input", "least", f"most_{number}"], [name])
        for number, name in enumerate(names)
    ]
    given, *taken = (
        helper.make_tensor_value_info(name, TensorProto.UINT8, clip.given)
        for name in ("input", *names)
    )
    graph = helper.make_graph(nodes, "clip", [given], taken, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
