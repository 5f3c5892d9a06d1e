"""The program of a network, by symbolic tracing: only if it is faithful."""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from seernet.models.modes import in_mode

logger = logging.getLogger(__name__)


class _Tracer(fx.Tracer):
    """Looks into every module that is not a basic one of torch or torchvision."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        package = type(m).__module__.partition(".")[0]
        return super().is_leaf_module(m, module_qualified_name) or (
            package in ("torch", "torchvision")
            and not list(m.children())
            and not isinstance(m, ExtraFPNBlock)  # it returns lists, which are looked into
        )


def program(model: nn.Module) -> fx.GraphModule | None:
    """A network's program over its own modules, in the same mode.

    Returns:
        None, after a warning, where it cannot be traced or depends on the mode.
    """
    graphs = []
    try:
        for training in (True, False):
            with in_mode(model, training=training):
                graphs.append(_Tracer().trace(model))
    except Exception as error:  # noqa: BLE001 - it fails in the user's own code, in any way
        warn(f"torch.fx cannot trace it ({' '.join(str(error).split())[:120]})")
        return None
    sources = [graph.python_code("self").src for graph in graphs]
    if sources[0] != sources[1]:
        warn("its program differs between training and inference")
        return None
    module = fx.GraphModule(model, graphs[1], type(model).__name__)
    _drop_identities(module)
    modes = {name: part.training for name, part in model.named_modules()}
    for name, part in module.named_modules():  # its containers are new
        part.training = modes.get(name, model.training)
    return module


def _drop_identities(module: fx.GraphModule) -> None:
    """Drop calls that do nothing: identities, and empty sequences (shortcuts, say)."""
    for node in list(module.graph.nodes):
        part = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        empty = type(part) is nn.Sequential and not len(part)
        if (type(part) is nn.Identity or empty) and len(node.args) == 1:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)


@functools.cache
def warn(reason: str) -> None:
    """Say it once in a process, not for each policy that is measured."""
    logger.warning("feature maps stay unquantized between this network's layers: %s", reason)


def dimensions(module: fx.GraphModule, image: Tensor) -> dict[fx.Node, int]:
    """Number of dimensions of each node's tensor."""
    found: dict[fx.Node, int] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                found[n] = result.dim()
            return result

    with in_mode(module, training=False), torch.no_grad():
        Watch(module).run(image)
    return found


def same_function(model: nn.Module, module: fx.GraphModule, image: Tensor) -> bool:
    """Whether a program computes what the network does."""
    with in_mode(model, training=False), in_mode(module, training=False), torch.no_grad():
        pairs = zip(tree_leaves(model(image)), tree_leaves(module(image)), strict=True)
    return all(
        torch.allclose(
            found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()), equal_nan=True
        )
        for expected, found in pairs
    )
