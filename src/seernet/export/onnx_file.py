"""`model.onnx`: a network as a file that integer runtimes run, and a check that they do."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from torch import nn

from seernet.errors import ExportError
from seernet.export.detector import DecodedDetector
from seernet.export.integer import OPSET, Deployed, to_integers
from seernet.export.packed import REMEDY, Shipped
from seernet.models import Detector

INPUT, OUTPUT = "image", "logits"
_QUANTIZE = "QuantizeLinear"
BYTE = 255


def write_onnx(
    path: Path,
    network: nn.Module,
    shipped: Shipped,
    metadata: Mapping[str, str],
    *,
    selects: bool = True,
) -> None:
    """Write a network that takes uint8 images, `n x h x w x c` with any n, as `image`.

    Args:
        path: The file.
        network: Compressed and trained, or a plain network, which stays in float32.
        shipped: What it is.
        metadata: Further properties to keep in the file.
        selects: Whether a detector chooses among its boxes; else all are given.

    Raises:
        ExportError: If torch cannot export the network.
    """
    channels, height, width = shipped.graph.input_shape
    integers = to_integers(network, shipped.graph.input_shape)
    decoded = None
    if isinstance(integers, Detector):
        integers = decoded = DecodedDetector(integers, shipped.graph.input_shape, selects)
    deployed = Deployed(integers, shipped.mean, shipped.std, width).eval()
    image = torch.zeros(2, height, width, channels, dtype=torch.uint8)
    described = {
        **(decoded.properties if decoded is not None else {}),
        "task": shipped.task,
        "classes": json.dumps(list(shipped.classes), ensure_ascii=False),
        "policy": json.dumps(shipped.policy.to_dict()),
        **metadata,
    }
    try:
        model = _exported(deployed, image, [OUTPUT] if decoded is None else decoded.outputs)
        simplify(model)
        if decoded is not None and selects:
            decoded.add_selection(model.graph)
        del model.metadata_props[:]
        helper.set_model_props(model, described)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ExportError(
            f"torch cannot export {shipped.model.name} to ONNX ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}){REMEDY}"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _exported(network: nn.Module, image: torch.Tensor, outputs: list[str]) -> onnx.ModelProto:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (image,),
            dynamo=True,
            optimize=False,
            verbose=False,
            input_names=[INPUT],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
        )
    model: onnx.ModelProto = program.model_proto  # type: ignore[union-attr]
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporting writes many lines that no user can act on."""
    names = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def simplify(model: onnx.ModelProto) -> None:
    """Drop what tracing left and what would keep a runtime from its integer kernels, in place.

    A bounded ReLU (ReLU6) that only quantizers read becomes the upper end of their integer clips:
    the same values, and the convolution before it is followed by its quantizer.
    """
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "Identity"]:
        _bypass(graph, node)
    for node in [node for node in graph.node if node.op_type == "Clip"]:
        _clip_as_integers(graph, node)
    _drop_unread(graph)
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del graph.value_info[:]  # any reader infers them
    for value in (*graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
    del graph.metadata_props[:]


def _bypass(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Let the readers of a node read its input."""
    if any(value.name == node.output[0] for value in graph.output):
        return
    for reader, index in _readers(graph, node.output[0]):
        reader.input[index] = node.input[0]
    graph.node.remove(node)


def _clip_as_integers(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    constants = _constants(graph)
    names = [*node.input[1:3], "", ""][:2]  # the exporter leaves out missing bounds at the end
    low, high = (float(constants[name]) if name in constants else None for name in names)
    readers = _quantizers(graph, node.output[0])
    if low != 0.0 or high is None or not readers:
        return
    if any(int(constants[quantize.input[2]]) != 0 for quantize in readers):
        return  # a signed quantizer would let negative values pass
    for quantize in readers:
        top = round(high / float(constants[quantize.input[1]]))
        _limit(graph, quantize, top, constants)
    for reader, index in _readers(graph, node.output[0]):
        reader.input[index] = node.input[0]


def _quantizers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The quantizers that alone read a tensor, behind a pool or not; none if others do too."""
    found = []
    for reader, _ in _readers(graph, name):
        behind = _quantizers(graph, reader.output[0]) if reader.op_type == "MaxPool" else []
        if reader.op_type != _QUANTIZE and not behind:
            return []
        found += [reader] if reader.op_type == _QUANTIZE else behind
    return found


def _limit(
    graph: onnx.GraphProto, quantize: onnx.NodeProto, top: int, constants: dict[str, Any]
) -> None:
    """Clip what a quantizer gives to at most `top`."""
    ((reader, index),) = _readers(graph, quantize.output[0])
    if reader.op_type == "Clip":
        top = min(top, int(constants[reader.input[2]]))
    elif top >= BYTE:
        return
    name = f"{quantize.output[0]}_top"
    graph.initializer.append(numpy_helper.from_array(np.array(top, dtype=np.uint8), name))
    if reader.op_type == "Clip":
        reader.input[2] = name
        return
    low = f"{quantize.output[0]}_low"
    graph.initializer.append(numpy_helper.from_array(np.array(0, dtype=np.uint8), low))
    clipped = f"{quantize.output[0]}_clipped"
    clip = helper.make_node("Clip", [quantize.output[0], low, name], [clipped])
    reader.input[index] = clipped
    graph.node.insert(list(graph.node).index(quantize) + 1, clip)


def _drop_unread(graph: onnx.GraphProto) -> None:
    while True:
        read = {name for node in graph.node for name in node.input}
        read |= {value.name for value in graph.output}
        unread = [node for node in graph.node if not read.intersection(node.output)]
        if not unread:
            break
        for node in unread:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def _readers(graph: onnx.GraphProto, name: str) -> list[tuple[onnx.NodeProto, int]]:
    return [(n, i) for n in graph.node for i, read in enumerate(n.input) if read == name]


def _constants(graph: onnx.GraphProto) -> dict[str, Any]:
    """Values of initializers and constant nodes, by name, cast ones too."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Cast", "CastLike") and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
        elif node.op_type == "Constant":
            (value,) = (helper.get_attribute_value(attribute) for attribute in node.attribute)
            is_tensor = isinstance(value, onnx.TensorProto)
            found[node.output[0]] = numpy_helper.to_array(value) if is_tensor else np.array(value)
    return found


def session(
    model: Path | bytes, threads: int = 0, optimized: Path | None = None
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU.

    Args:
        model: The file, or what it holds.
        threads: 0 takes one for each core.
        optimized: Where to write the graph that it makes of it, if anywhere.

    Raises:
        ExportError: If the file cannot be loaded.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions share no base class
        what = model if isinstance(model, Path) else "a network"
        raise ExportError(
            f"ONNX Runtime cannot load {what} ({' '.join(str(error).split())[:200]}); run the "
            "export stage again."
        ) from error


@dataclass(frozen=True)
class Kernels:
    """In which arithmetic ONNX Runtime runs a network on the CPU.

    Attributes:
        integer_convolutions: Convolutions in integers.
        float_convolutions: Others, which it computes between dequantizing and quantizing.
        integer_adds: Additions of feature maps in integers.
        float_adds: Others.
    """

    integer_convolutions: int
    float_convolutions: int
    integer_adds: int
    float_adds: int


def kernels(path: Path) -> Kernels:
    """Look at the graph that ONNX Runtime makes of a file.

    Raises:
        ExportError: If the file cannot be loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        session(path, optimized=optimized)
        graph = onnx.load(optimized).graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    counts = dict.fromkeys(("int Conv", "float Conv", "int Add", "float Add"), 0)
    for node in graph.node:
        for kind in ("Conv", "Add"):
            integer = "QLinear" in node.op_type or "Integer" in node.op_type
            # A sum with a constant is a shift or a bias, no sum of feature maps.
            shift = node.op_type == "Add" and bool(constants & set(node.input))
            if kind in node.op_type and not shift:
                counts[f"{'int' if integer else 'float'} {kind}"] += 1
    return Kernels(*counts.values())
