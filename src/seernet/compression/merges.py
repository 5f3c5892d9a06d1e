"""Quantizing the tensors that enter an add or a concatenation.

A runtime with integer kernels keeps a residual network in integers only if both sides of an add
are quantized too; so training sees it as well. The places are found by symbolic tracing.
"""

from __future__ import annotations

import logging
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from seernet.compression.quantizer import Quantizer

logger = logging.getLogger(__name__)

_ADDS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_CATS: tuple[Any, ...] = (torch.cat, torch.concat, torch.concatenate)


class _Tracer(fx.Tracer):
    """Looks into every module that is not a basic one of torch or torchvision."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        package = type(m).__module__.partition(".")[0]
        return super().is_leaf_module(m, module_qualified_name) or (
            package in ("torch", "torchvision") and not list(m.children())
        )


def quantize_merges(model: nn.Module, image: Tensor, bits: int) -> nn.Module:
    """Insert a quantizer before each add and concatenation of feature maps.

    Args:
        model: The network, on one device; its modules are taken over, not copied.
        image: One image, `1 x c x h x w`, on the same device.
        bits: Bit-width, 8 by design.

    Returns:
        A network with the same module names, in the same mode. Where the program of the network
        cannot be traced, the network itself, after a warning.
    """
    graph = _trace(model)
    if graph is None:
        return model
    module = fx.GraphModule(model, graph, type(model).__name__)
    shapes = _shapes(module, image)
    quantizers: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        for source in _merged(node):
            if shapes.get(source) != 4:
                continue
            if source not in quantizers:
                name = f"merge_{len(quantizers)}"
                module.add_module(name, Quantizer(bits).to(image.device))
                with graph.inserting_after(source):
                    quantizers[source] = graph.call_module(name, (source,))
            node.replace_input_with(source, quantizers[source])
        if node.target in (operator.iadd, "add_") and any(n in quantizers.values() for n in node.args):
            _out_of_place(graph, node)
    graph.lint()
    module.recompile()
    return module.train(model.training)


def _trace(model: nn.Module) -> fx.Graph | None:
    try:
        modes = []
        was_training = model.training
        for training in (not was_training, was_training):
            model.train(training)
            modes.append(_Tracer().trace(model))
        programs = [graph.python_code("self").src for graph in modes]
        if programs[0] == programs[1]:
            return modes[1]
        reason = "its program differs between training and inference"
    except Exception as error:  # symbolic tracing fails in the user's own code, in any way
        reason = f"torch.fx cannot trace it ({' '.join(str(error).split())[:120]})"
    finally:
        model.train(was_training)
    logger.warning("adds and concatenations stay unquantized in this network: %s", reason)
    return None


def _merged(node: fx.Node) -> list[fx.Node]:
    """The nodes whose tensors meet in `node`."""
    if node.target in _ADDS and len(node.args) == 2:
        sources: Any = node.args
    elif node.target in _CATS and node.args and isinstance(node.args[0], list | tuple):
        sources = node.args[0]
    else:
        return []
    nodes = [source for source in sources if isinstance(source, fx.Node)]
    return list(dict.fromkeys(nodes)) if len(nodes) == len(sources) else []


def _shapes(module: fx.GraphModule, image: Tensor) -> dict[fx.Node, int]:
    """Number of dimensions of each node's tensor."""
    dimensions: dict[fx.Node, int] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                dimensions[n] = result.dim()
            return result

    training = module.training
    with torch.no_grad():
        Watch(module.eval()).run(image)
    module.train(training)
    return dimensions


def _out_of_place(graph: fx.Graph, node: fx.Node) -> None:
    """Adding in place would write into a quantized tensor that others may read."""
    with graph.inserting_after(node):
        new = graph.call_function(operator.add, node.args)
    node.replace_all_uses_with(new)
    graph.erase_node(node)
