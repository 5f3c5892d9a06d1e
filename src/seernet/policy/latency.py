"""Latency of a policy, from a table of layers that were timed on the target.

    latency(p) = fixed + factor x sum over layers of T(kept_in, kept_out) + per_value x values

T is interpolated bilinearly between the channel counts that were timed, so latency has a gradient
like any other cost. `values` counts what layers give; it stands for all that happens between them
(additions, pooling, quantizing). The table is written where layers are timed (`export.latency`) and
read here, on any machine.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seernet.errors import ArtifactError
from seernet.graph import Layer, NetworkGraph

VERSION = 1
NONE = json.dumps({"version": VERSION, "layers": None}) + "\n"


@dataclass(frozen=True)
class LayerTimes:
    """Time of one layer over a grid of channel counts.

    Attributes:
        inputs: Kept input channels, increasing, the layer's own number last.
        outputs: Kept output channels, the same.
        ms: Milliseconds, one row for each of `inputs`. More channels may take less time: kernels
            like round numbers of them.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class LatencyTable:
    """What was timed on one target; times in milliseconds, of one image.

    Attributes:
        target: Runtime and threads, in words.
        baseline_ms: The uncompressed network in float32.
        fixed_ms: What does not depend on the policy.
        factor: Of layers in a network, over layers alone.
        ms_per_value: Cost of what happens between layers, for each value that a layer gives.
        layers: By name.
    """

    target: str
    baseline_ms: float
    fixed_ms: float
    factor: float
    ms_per_value: float
    layers: Mapping[str, LayerTimes]

    def check(self, graph: NetworkGraph) -> None:
        """Refuse a table of another network.

        Raises:
            ArtifactError: If a layer is missing, or has another number of channels.
        """
        odd = [layer.name for layer in graph.layers if not self._knows(layer)]
        if odd or len(self.layers) != len(graph.layers):
            odd += [name for name in self.layers if name not in {x.name for x in graph.layers}]
            raise ArtifactError(
                f"the latency table is of another network: it differs in {', '.join(odd[:3])}; "
                "measure this one (`latency.table: measure`), on the target."
            )

    def _knows(self, layer: Layer) -> bool:
        times = self.layers.get(layer.name)
        ends = (layer.in_features, layer.out_features)
        return times is not None and (times.inputs[-1], times.outputs[-1]) == ends

    def save(self, path: Path) -> None:
        """Write as JSON."""
        document = {"version": VERSION, **asdict(self)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document) + "\n", encoding="utf-8")

    @classmethod
    def of_run(cls, path: Path) -> LatencyTable | None:
        """What the stage `latency` wrote: a table, or that there is none.

        Raises:
            ArtifactError: If the file is missing or damaged.
        """
        there_is_none = path.exists() and path.read_text(encoding="utf-8") == NONE
        return None if there_is_none else cls.load(path)

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        """Read what `save` wrote.

        Raises:
            ArtifactError: If the file is missing, damaged, or of another version.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document.pop("version") != VERSION:
                raise ValueError(f"its version is not {VERSION}")
            layers = {name: _times(entry) for name, entry in document.pop("layers").items()}
            table = cls(layers=layers, **document)
            numbers = [table.baseline_ms, table.fixed_ms, table.factor, table.ms_per_value]
            if not all(isinstance(n, int | float) and 0 <= n < float("inf") for n in numbers):
                raise ValueError("a time is negative or no number")
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"cannot read the latency table {path} ({' '.join(str(error).split())}); run `dvc "
                "repro latency`, with `latency.table: measure` or a file that it wrote elsewhere."
            ) from error
        return table


def _times(entry: Mapping[str, Any]) -> LayerTimes:
    inputs, outputs = (tuple(int(n) for n in entry[side]) for side in ("inputs", "outputs"))
    ms = torch.tensor(entry["ms"], dtype=torch.float64)
    rising = all(a < b for end in (inputs, outputs) for a, b in itertools.pairwise(end))
    if ms.shape != (len(inputs), len(outputs)) or not rising:
        raise ValueError("its channel counts do not fit its times")
    if not bool((ms >= 0).all()):
        raise ValueError("a time is negative")
    return LayerTimes(inputs, outputs, tuple(tuple(row) for row in ms.tolist()))


class Interpolation:
    """The table's sum over layers, for many policies at once.

    Args:
        times: Of `l` layers, in order.
    """

    def __init__(self, times: Sequence[LayerTimes]) -> None:
        rows = max(len(t.inputs) for t in times)
        columns = max(len(t.outputs) for t in times)
        # Shorter grids begin with copies of their first counts: intervals that nothing falls into.
        self._inputs = torch.tensor([_front(t.inputs, rows) for t in times]).double()
        self._outputs = torch.tensor([_front(t.outputs, columns) for t in times]).double()
        self._ms = torch.tensor(
            [_front([_front(row, columns) for row in t.ms], rows) for t in times]
        ).double()

    def __call__(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Milliseconds of `n` policies, from kept channels, each `n x l`; beyond the grid, flat."""
        layer = torch.arange(len(self._ms))
        i, w = _place(self._inputs, inputs)
        j, v = _place(self._outputs, outputs)

        def corner(a: int, b: int) -> Tensor:
            return self._ms[layer, i + a, j + b]

        near = torch.lerp(corner(0, 0), corner(0, 1), v)
        far = torch.lerp(corner(1, 0), corner(1, 1), v)
        return torch.lerp(near, far, w).sum(dim=1)


def _front(values: Sequence[Any], length: int) -> list[Any]:
    return [values[0]] * (max(length, 2) - len(values)) + list(values)


def _place(knots: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Interval of each value and how far into it, both `n x l`; knots are `l x k`, k >= 2."""
    found = torch.searchsorted(knots, value.detach().T.contiguous()).T
    left = (found - 1).clamp(0, knots.shape[1] - 2)
    layer = torch.arange(len(knots))
    low, high = knots[layer, left], knots[layer, left + 1]
    return left, ((value - low) / (high - low).clamp_min(1e-9)).clamp(0.0, 1.0)
