"""Finding the feature maps that a runtime with integer kernels has to store in 8 bits.

A convolution reads integers, of the bit-width that its policy gives its input, and adds them up to
wider ones. Where one layer alone reads a map, it is stored at that layer's width. Everywhere else
it is stored in 8 bits, and whoever reads it reads these: the operands and results of adds and
concatenations, maps that several read, and those that something other than a layer reads (pooling,
a gate). Training sees the same, so that what is exported computes what was trained.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from seernet.models.modes import in_mode
from seernet.models.program import dimensions, program, same_function, warn

_ADDS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_CATS: tuple[Any, ...] = (torch.cat, torch.concat, torch.concatenate)
# What integers pass, or what becomes part of the layer before it.
_PASSED_MODULES = (nn.ReLU, nn.ReLU6, nn.MaxPool2d, nn.Dropout)
_PASSED: tuple[Any, ...] = (
    *(F.relu, F.relu6, F.max_pool2d, F.dropout, torch.relu, torch.max_pool2d),
    *("relu", "relu_"),
)
_LAYERS = (nn.Conv2d, nn.Linear)


def expose_maps(model: nn.Module, image: Tensor) -> tuple[nn.Module, list[str]]:
    """Insert an `nn.Identity` where a feature map is to be stored; see the module's docstring.

    Where the whole of a network cannot be traced, its attribute `traceable` names the submodules
    that can (detectors), and only these are looked into.

    Args:
        model: The network, on one device; its modules are taken over, not copied.
        image: One image, `1 x c x h x w`, on the same device.

    Returns:
        A network with the same module names, in the same mode, and the names of what was inserted.
        Where the program of the network cannot be traced faithfully, the network itself and no
        name, after a warning.
    """
    parts = getattr(model, "traceable", None)
    if parts is None:
        return _expose(model, image, is_part=False)
    inserted = []
    for name, given in _inputs_of(model, parts, image).items():
        part, names = _expose(model.get_submodule(name), given, is_part=True)
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


def _expose(model: nn.Module, image: Tensor, is_part: bool) -> tuple[nn.Module, list[str]]:
    """Expose the maps of one traceable network; what a part returns is a map too."""
    module = program(model)
    if module is None:
        return model, []
    maps = _Maps(module, dimensions(module, image))
    maps.store_operands()
    maps.store_results(is_part)
    module.graph.lint()
    module.recompile()
    if not same_function(model, module, image):
        warn("its traced program computes something else")
        return model, []
    return module, maps.order()


class _Maps:
    """The maps of one program, as they are found."""

    def __init__(self, module: fx.GraphModule, dims: dict[fx.Node, int]) -> None:
        self.module = module
        self.graph = module.graph
        self.dims = dims
        self.modules = dict(module.named_modules())
        self.names = (n for n in map("map_{}".format, itertools.count()) if not hasattr(module, n))
        self.stored: dict[fx.Node, fx.Node] = {}  # by what they hold

    def order(self) -> list[str]:
        """Names of the stored maps, in the order of the program."""
        found = set(self.stored.values())
        return [str(node.target) for node in self.graph.nodes if node in found]

    def _new(self, source: fx.Node) -> fx.Node:
        name = next(self.names)
        self.module.add_module(name, nn.Identity().train(self.module.training))
        self.stored[source] = node = self.graph.call_module(name, (source,))
        self.dims[node] = self.dims[source]
        return node

    def store_operands(self) -> None:
        """Store each operand of an add or a concatenation of maps."""
        for node in list(self.graph.nodes):
            sources = [s for s in _merged(node) if self.dims.get(s) == 4]
            for source in sources:
                if source not in self.stored:
                    # Right before its first use: operations in place may still change the tensor.
                    with self.graph.inserting_before(node):
                        self._new(source)
                node.replace_input_with(source, self.stored[source])
            if sources and node.target in (operator.iadd, "add_"):
                new = _out_of_place(self.graph, node, sources[0])
                self.dims[new] = self.dims[node]

    def store_results(self, is_part: bool) -> None:
        """Store what a layer or a merge gives, unless one layer alone reads it.

        Args:
            is_part: Whether the program is a part of a network, so that its output is read.
        """
        for node in list(self.graph.nodes):
            if self.dims.get(node) != 4 or not (self._is_layer(node) or _merged(node)):
                continue
            end = self._end(node)
            kept = self.stored.get(end)
            readers = [user for user in end.users if user is not kept]
            read_by_layer = len(end.users) == 1 and any(map(self._is_layer, readers))
            put_out = not is_part and all(user.op == "output" for user in readers)
            if not readers or read_by_layer or put_out:
                continue
            if kept is None:
                with self.graph.inserting_after(end):
                    kept = self._new(end)
            else:
                end.append(kept)  # moves it right behind
            end.replace_all_uses_with(
                kept,
                delete_user_cb=lambda user, kept=kept: user is not kept,  # type: ignore[misc]
            )

    def _end(self, node: fx.Node) -> fx.Node:
        """The last of the operations behind a node that integers pass."""
        foldable = self._is_layer(node)
        while len(node.users) == 1:
            (user,) = node.users
            module = self.modules.get(str(user.target)) if user.op == "call_module" else None
            is_norm = isinstance(module, nn.BatchNorm2d)
            passed = isinstance(module, _PASSED_MODULES) or _calls(user, _PASSED)
            if user in self.stored.values() or not (passed or (is_norm and foldable)):
                break
            foldable = False
            node = user
        return node

    def _is_layer(self, node: fx.Node) -> bool:
        return node.op == "call_module" and isinstance(self.modules.get(str(node.target)), _LAYERS)


def _calls(node: fx.Node, operations: Collection[Any]) -> bool:
    """Whether a node is one of these functions or methods, not a module of the same name."""
    return node.op in ("call_function", "call_method") and node.target in operations


def _merged(node: fx.Node) -> list[fx.Node]:
    """The nodes whose tensors meet in `node`, each once; none where a number takes part."""
    if _calls(node, _ADDS):
        named = [node.kwargs[key] for key in ("input", "other") if key in node.kwargs]
        sources: Any = [*node.args, *named]
    elif _calls(node, _CATS):
        sources = node.args[0] if node.args else node.kwargs.get("tensors", ())
    else:
        return []
    if not isinstance(sources, list | tuple):
        return []
    nodes = [source for source in sources if isinstance(source, fx.Node)]
    return list(dict.fromkeys(nodes)) if len(nodes) == len(sources) else []


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
