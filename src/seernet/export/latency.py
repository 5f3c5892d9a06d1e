"""Timing a network where it will run: the table behind limits on latency.

Every layer is timed alone, as the exported network runs it, over the channel counts that policies
reach: with the kernel that most bit-widths share, and with the one that 8-bit weights on 8-bit
inputs take. So is the clip of its input. What is of the same shape is timed once. Then whole
networks of a few widths, exported as for shipping, say how much longer a network takes than its
layers (`calibrate`).
"""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import nn

from seernet.compression import compress
from seernet.errors import ExportError
from seernet.export.clock import Clock
from seernet.export.layers import Clip, Part, Shape, shapes
from seernet.export.onnx_file import write_onnx
from seernet.export.packed import REMEDY, Shipped
from seernet.policy import CostModel, LatencyTable, LayerTimes, SearchSpace
from seernet.policy.latency import timed_counts
from seernet.progress import Bar, bar

NETWORKS = 6  # whole networks, from the narrowest to the full width, of any bits
ROUNDS = 5  # in which they are timed
SPREAD = 0.5  # of the widths inside one of them

Floats = NDArray[np.float64]
logger = logging.getLogger(__name__)


def time_layers(
    calls: dict[str, list[Shape]], space: SearchSpace, timer: Callable[[Part], float]
) -> dict[str, LayerTimes]:
    """Tables of all layers, at the channel counts of a space; equal shapes are timed once.

    Args:
        calls: What `shapes` gives.
        space: The search space.
        timer: Milliseconds of one layer, or of one clip.
    """
    layers = {layer.name: layer for layer in space.graph.layers}
    ends = {name: timed_counts(space, layer) for name, layer in layers.items()}
    clips: dict[str, list[Part]] = {n: [Clip(shape.given) for shape in calls[n]] for n in calls}

    def parts(name: str, inputs: int, outputs: int, wide: bool) -> list[Part]:
        return [replace(shape.pruned(inputs, outputs), wide=wide) for shape in calls[name]]

    wanted = set(itertools.chain.from_iterable(clips.values()))
    for name, (inputs, outputs) in ends.items():
        for one in itertools.product(inputs, outputs, (False, True)):
            wanted.update(parts(name, *one))
    known = {}
    with bar(len(wanted), "timing layers", "layer") as shown:
        for part in sorted(wanted, key=repr):
            known[part] = timer(part)
            shown.update()

    def total(ones: Iterable[Part]) -> float:
        return float(f"{sum(known[one] for one in ones):.5g}")

    found = {}
    for name, (inputs, outputs) in ends.items():
        ms, wide_ms = (
            tuple(tuple(total(parts(name, i, o, wide)) for o in outputs) for i in inputs)
            for wide in (False, True)
        )
        macs = layers[name].macs
        found[name] = LayerTimes(inputs, outputs, macs, ms, wide_ms, total(clips[name]))
    return found


def time_networks(
    networks: Iterable[nn.Module], shipped: Shipped, clock: Clock, shown: Bar | None = None
) -> list[float]:
    """Milliseconds of one image in each of some networks, exported as for shipping.

    Several take turns, several times over: what slows the machine for a while slows all alike.

    Of detectors without the choice among boxes: its time is by what an image shows and how well the
    network is trained, and networks of no training at all, as here, take any box for an object.

    Args:
        networks: Each is exported before the next is asked for.
        shipped: What they are; their policies do not count.
        clock: Times them.
        shown: Counts those that were exported.

    Raises:
        ExportError: If a network cannot be exported.
    """
    channels, height, width = shipped.graph.input_shape
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for network in networks:
            path = Path(folder) / "model.onnx"
            write_onnx(path, network, shipped, {}, selects=False)
            files.append(path.read_bytes())
            if shown is not None:
                shown.update()
    size = (1, height, width, channels)
    rounds = [[clock.network(file, size) for file in files] for _ in range(ROUNDS)]
    return [float(ms) for ms in np.median(rounds, axis=0)]


def calibrate(layers: Floats, values: Floats, measured: Floats) -> tuple[float, float, float]:
    """What a network takes on top of its layers: least squares of relative errors, none negative.

    Args:
        layers: For each timed network, the sum over its layers alone, in ms.
        values: For each, the values that its layers give.
        measured: What each took, in ms.

    Returns:
        `fixed_ms`, `factor` and `ms_per_value` of a `LatencyTable`.
    """
    columns = np.stack([np.ones_like(layers), layers, values], axis=1) / measured[:, None]
    size = columns.max(axis=0)
    found, _ = nnls(columns / size, np.ones_like(measured))
    fixed, factor, per_value = (float(x) for x in found / size)
    return fixed, factor, per_value


def measure(network: nn.Module, shipped: Shipped, space: SearchSpace, threads: int) -> LatencyTable:
    """Time a network's layers, and the network, on this machine.

    Args:
        network: The uncompressed network, on the CPU.
        shipped: What it is; its policy does not count.
        space: The search space, whose channel counts are timed.
        threads: CPU threads of ONNX Runtime.

    Raises:
        ExportError: If the network cannot be exported.
    """
    graph = shipped.graph
    clock = Clock(threads)
    try:  # first: a network that cannot be exported cannot be timed
        (baseline,) = time_networks([network], shipped, clock)
    except ExportError as error:
        raise ExportError(
            "limits on latency need a network that ONNX Runtime runs: "
            f"{str(error).removesuffix(REMEDY)}; limit bops, macs or size_bytes instead."
        ) from error
    table = LatencyTable(
        target=f"ONNX Runtime {onnxruntime.__version__}, {threads} thread{'s'[: threads > 1]}",
        baseline_ms=baseline,
        fixed_ms=0.0,
        factor=1.0,
        ms_per_value=0.0,
        layers=time_layers(shapes(network, graph), space, clock.part),
    )
    cost, generator = CostModel(space, table), torch.Generator().manual_seed(0)
    images = torch.randn(8, *graph.input_shape, generator=generator)
    points = torch.rand(NETWORKS, space.dimension, dtype=torch.float64, generator=generator)
    level = torch.linspace(0.0, 1.0, NETWORKS, dtype=torch.float64)[:, None]
    widths = torch.tensor([c.kind == "pruning_ratio" for c in space.coordinates])
    points = torch.where(widths, (SPREAD * (points - 0.5) + level).clamp(0.0, 1.0), points)
    policies = space.decode(points)
    compressed = (compress(network, policy, graph, images).eval() for policy in policies)
    with bar(len(policies), "exporting whole networks", "network") as shown:
        measured = time_networks(compressed, shipped, clock, shown)
    sums = cost(space.encode(policies))
    if clock.disturbed:
        logger.warning(
            "%d times may be too long, since other work slowed this machine down; measure again "
            "when it is idle: `dvc repro -f -s latency`.",
            clock.disturbed,
        )
    fixed, factor, per_value = calibrate(
        sums.latency_ms.numpy(), sums.values.numpy(), np.array(measured)
    )
    return replace(table, fixed_ms=fixed, factor=factor, ms_per_value=per_value)
