"""Finding the tensors that enter an add or a concatenation, so that they can be quantized.

A runtime with integer kernels keeps a residual network in integers only if both sides of an add
are quantized too; so training sees it as well. The places are found by symbolic tracing.
"""

from __future__ import annotations

import functools
import itertools
import logging
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from seernet.models.modes import in_mode

logger = logging.getLogger(__name__)

_ADDS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_CATS: tuple[Any, ...] = (torch.cat, torch.concat, torch.concatenate)


class _Tracer(fx.Tracer):
    """Looks into every module that is not a basic one of torch or torchvision."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        package = type(m).__module__.partition(".")[0]
        return super().is_leaf_module(m, module_qualified_name) or (
            package in ("torch", "torchvision")
            and not list(m.children())
            and not isinstance(m, ExtraFPNBlock)  # it returns lists, which are looked into
        )


def expose_merges(model: nn.Module, image: Tensor) -> tuple[nn.Module, list[str]]:
    """Insert an `nn.Identity` before each add and concatenation of feature maps.

    Where the whole of a network cannot be traced, its attribute `mergeable` names the submodules
    that can (detectors), and only these are looked into.

    Args:
        model: The network, on one device; its modules are taken over, not copied.
        image: One image, `1 x c x h x w`, on the same device.

    Returns:
        A network with the same module names, in the same mode, and the names of what was inserted.
        Where the program of the network cannot be traced faithfully, the network itself and no
        name, after a warning.
    """
    parts = getattr(model, "mergeable", None)
    if parts is None:
        return _expose(model, image)
    inserted = []
    for name, given in _inputs_of(model, parts, image).items():
        part, names = _expose(model.get_submodule(name), given)
        model.set_submodule(name, part)
        inserted += [f"{name}.{inner}" for inner in names]
    return model, inserted


def _inputs_of(model: nn.Module, parts: Sequence[str], image: Tensor) -> dict[str, Tensor]:
    """What each submodule is given for an image."""
    given: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: given.update({name: inputs[0]})  # type: ignore[misc]
        )
        for name in parts
    ]
    try:
        with in_mode(model, training=False), torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return given


def _expose(model: nn.Module, image: Tensor) -> tuple[nn.Module, list[str]]:
    graph = _trace(model)
    if graph is None:
        return model, []
    module = fx.GraphModule(model, graph, type(model).__name__)
    modes = {name: part.training for name, part in model.named_modules()}
    for name, part in module.named_modules():  # its containers are new
        part.training = modes.get(name, model.training)
    names = _insert(module, _dimensions(module, image))
    graph.lint()
    module.recompile()
    if not _same_function(model, module, image):
        _warn("its traced program computes something else")
        return model, []
    return module, names


def _insert(module: fx.GraphModule, dimensions: dict[fx.Node, int]) -> list[str]:
    graph = module.graph
    names = (n for n in map("merge_{}".format, itertools.count()) if not hasattr(module, n))
    places: dict[fx.Node, fx.Node] = {}
    inserted = []
    for node in list(graph.nodes):
        sources = [s for s in _merged(node) if dimensions.get(s) == 4]
        for source in sources:
            if source not in places:
                name = next(names)
                inserted.append(name)
                module.add_module(name, nn.Identity().train(module.training))
                # Right before its first use: operations in place may still change the tensor.
                with graph.inserting_before(node):
                    places[source] = graph.call_module(name, (source,))
            node.replace_input_with(source, places[source])
        if sources and node.target in (operator.iadd, "add_"):
            new = _out_of_place(graph, node, sources[0])
            dimensions[new] = dimensions[node]
    return inserted


def _trace(model: nn.Module) -> fx.Graph | None:
    graphs = []
    try:
        for training in (True, False):
            with in_mode(model, training=training):
                graphs.append(_Tracer().trace(model))
    except Exception as error:  # noqa: BLE001 - it fails in the user's own code, in any way
        _warn(f"torch.fx cannot trace it ({' '.join(str(error).split())[:120]})")
        return None
    programs = [graph.python_code("self").src for graph in graphs]
    if programs[0] != programs[1]:
        _warn("its program differs between training and inference")
        return None
    return graphs[1]


@functools.cache
def _warn(reason: str) -> None:
    """Say it once in a process, not for each policy that is measured."""
    logger.warning("adds and concatenations stay unquantized in this network: %s", reason)


def _merged(node: fx.Node) -> list[fx.Node]:
    """The nodes whose tensors meet in `node`, each once; none where a number takes part."""
    if node.target in _ADDS:
        named = [node.kwargs[key] for key in ("input", "other") if key in node.kwargs]
        sources: Any = [*node.args, *named]
    elif node.target in _CATS:
        sources = node.args[0] if node.args else node.kwargs.get("tensors", ())
    else:
        return []
    if not isinstance(sources, list | tuple):
        return []
    nodes = [source for source in sources if isinstance(source, fx.Node)]
    return list(dict.fromkeys(nodes)) if len(nodes) == len(sources) else []


def _dimensions(module: fx.GraphModule, image: Tensor) -> dict[fx.Node, int]:
    """Number of dimensions of each node's tensor."""
    dimensions: dict[fx.Node, int] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                dimensions[n] = result.dim()
            return result

    with in_mode(module, training=False), torch.no_grad():
        Watch(module).run(image)
    return dimensions


def _same_function(model: nn.Module, module: fx.GraphModule, image: Tensor) -> bool:
    """Whether a traced network computes what the network does."""
    with in_mode(model, training=False), in_mode(module, training=False), torch.no_grad():
        pairs = zip(tree_leaves(model(image)), tree_leaves(module(image)), strict=True)
    return all(
        torch.allclose(
            found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()), equal_nan=True
        )
        for expected, found in pairs
    )


def _out_of_place(graph: fx.Graph, node: fx.Node, source: fx.Node) -> fx.Node:
    """Add anew: adding in place would write into a quantized tensor, not into `source`.

    Whoever reads `source` later expects the sum.
    """
    with graph.inserting_after(node):
        new = graph.call_function(torch.add, node.args, node.kwargs)
    node.replace_all_uses_with(new)
    for user in list(source.users):
        if new < user:
            user.replace_input_with(source, new)
    graph.erase_node(node)
    return new
