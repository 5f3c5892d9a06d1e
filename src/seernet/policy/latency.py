"""Latency of a policy, from a table of layers that were timed on the target.

    latency(p) = fixed + factor x sum over layers of T(kept_in, kept_out, bits) + per_value x values

T is interpolated bilinearly between the channel counts that were timed, so latency has a gradient
like any other cost. Bits count in two ways only. An input of fewer than 8 bits is clipped to them;
where weights and input both have 8, the exported layer takes another kernel, which on some
processors is half as fast. `values` counts what layers give; it stands for all else that happens
between them (additions, pooling, quantizing). The table is written where layers are timed
(`export.latency`) and read here, on any machine.

Three simplifications: a clip's time goes by its channels; inputs of 8 bits have none, though behind
a ReLU6 they may keep one; the last layers of a detector's heads, which are exported in float32,
count as integer ones.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from seernet.errors import ArtifactError
from seernet.graph import Layer
from seernet.policy.space import SearchSpace

KERNEL_BITS = 8  # inputs of fewer are clipped; where weights have as many, another kernel runs
MOST_COUNTS = 12  # channel counts of one end of a layer
NONE = json.dumps({"layers": None}) + "\n"

Count = Annotated[int, Field(gt=0)]
Time = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]  # ms, or of ms
Grid = tuple[tuple[Time, ...], ...]


@dataclass(frozen=True)
class LayerTimes:
    """Time of one layer over a grid of channel counts.

    Attributes:
        inputs: Kept input channels, increasing, the layer's own number last.
        outputs: Kept output channels, the same.
        macs: MACs of the layer at full width, by which a table of another image size is told.
        ms: Milliseconds, one row for each of `inputs`. More channels may take less time: kernels
            like round numbers of them.
        wide_ms: The same where weights and input both have 8 bits.
        clip_ms: Of clipping the whole input to fewer than 8 bits.
    """

    inputs: tuple[Count, ...]
    outputs: tuple[Count, ...]
    macs: Count
    ms: Grid
    wide_ms: Grid
    clip_ms: Time

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    def __post_init__(self) -> None:
        for end in (self.inputs, self.outputs):
            if not end or any(a >= b for a, b in itertools.pairwise(end)):
                raise ValueError(f"channel counts should increase, got {end}")
        for grid in (self.ms, self.wide_ms):
            widths = {len(row) for row in grid}
            if len(grid) != len(self.inputs) or widths != {len(self.outputs)}:
                raise ValueError("its channel counts do not fit its times")


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
        version: Of the file.
    """

    target: str
    baseline_ms: Time
    fixed_ms: Time
    factor: Time
    ms_per_value: Time
    layers: Mapping[str, LayerTimes]
    version: Literal[2] = 2

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    def check(self, space: SearchSpace) -> None:
        """Refuse a table of another network, image size or search space.

        Raises:
            ArtifactError: If a layer is missing or differs, or other channel counts were timed.
        """
        layers = {layer.name: layer for layer in space.graph.layers}
        odd = [name for name in layers if not self._knows(layers[name])]
        odd += [name for name in self.layers if name not in layers]
        if odd:
            raise ArtifactError(
                f"the latency table is of another network or image size: it differs in "
                f"{', '.join(odd[:3])}; measure this one (`latency.table: measure`), on the target."
            )
        for name, layer in layers.items():
            timed = self.layers[name]
            if (timed.inputs, timed.outputs) != timed_counts(space, layer):
                raise ArtifactError(
                    f"the latency table is of another search space: in {name} other numbers of "
                    "channels were timed; measure again (`latency.table: measure`), on the target, "
                    "with this `space`."
                )

    def _knows(self, layer: Layer) -> bool:
        times = self.layers.get(layer.name)
        if times is None:
            return False
        ends = (layer.in_features, layer.out_features, layer.macs)
        return (times.inputs[-1], times.outputs[-1], times.macs) == ends

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def of_run(cls, path: Path) -> LatencyTable | None:
        """What the stage `latency` wrote; None if that is no table, or if it has not run.

        Raises:
            ArtifactError: If the file is damaged.
        """
        there_is_none = not path.exists() or path.read_bytes() == NONE.encode()
        return None if there_is_none else cls.load(path)

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        """Read what `save` wrote.

        Raises:
            ArtifactError: If the file is missing, damaged, or of another version.
        """
        try:
            return _FILE.validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ArtifactError(
                f"cannot read the latency table {path} ({_why(error)}); run `dvc repro latency`, "
                "with `latency.table: measure` or a file that it wrote elsewhere."
            ) from error


_FILE = TypeAdapter(LatencyTable)


def _why(error: OSError | ValidationError) -> str:
    """The first of an error's reasons, and where in the file."""
    if isinstance(error, OSError):
        return str(error)
    first = error.errors()[0]
    if first["input"] == json.loads(NONE):
        return "it says that there is none"
    return ": ".join(filter(None, ("/".join(map(str, first["loc"])), first["msg"])))


def timed_counts(space: SearchSpace, layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Kept input and output channels at which a layer is timed.

    Both ends of a depthwise layer are the same channels; its time is by its outputs.
    """
    inputs = kept_features(space, layer.inputs, layer.in_features)
    outputs = kept_features(space, layer.outputs, layer.out_features)
    return inputs[-1:] if layer.depthwise else inputs, outputs


def kept_features(space: SearchSpace, owners: Mapping[str, int], features: int) -> tuple[int, ...]:
    """How many features of one end of a layer may be kept, increasing.

    Those of several groups are thinned alike, and of very fine spaces some are left out.

    Args:
        space: The search space.
        owners: For each group, how many of the features are of it.
        features: How many there are in all.
    """
    groups = {c.name: c.values for c in space.coordinates if c.kind == "pruning_ratio"}
    counts = [(owned, groups[name]) for name, owned in owners.items()]
    levels = min(max((len(values) for _, values in counts), default=1), MOST_COUNTS)
    found = set()
    for step in range(levels):
        level = step / max(levels - 1, 1)
        removed = 0
        for owned, values in counts:
            kept = values[round(level * (len(values) - 1))]
            removed += owned - owned * kept // values[-1]
        found.add(features - removed)
    return tuple(sorted(found | {features}))


class Interpolation:
    """The table's layers, for many policies at once.

    Args:
        times: Of `l` layers, in order.
    """

    def __init__(self, times: Sequence[LayerTimes]) -> None:
        rows = max(len(t.inputs) for t in times)
        columns = max(len(t.outputs) for t in times)
        # Shorter grids begin with copies of their first counts: intervals that nothing falls into.
        self._inputs = torch.tensor([_front(t.inputs, rows) for t in times]).double()
        self._outputs = torch.tensor([_front(t.outputs, columns) for t in times]).double()
        self._ms, self._wide_ms = (
            torch.tensor(
                [_front([_front(row, columns) for row in one], rows) for one in grids]
            ).double()
            for grids in ([t.ms for t in times], [t.wide_ms for t in times])
        )
        self._clip_ms = torch.tensor([t.clip_ms for t in times]).double()

    def __call__(
        self, inputs: Tensor, outputs: Tensor, weight_bits: Tensor, act_bits: Tensor
    ) -> Tensor:
        """Milliseconds of all layers together, `n`.

        Args:
            inputs: Kept input channels of `n` policies, `n x l`; beyond the grid times are flat.
            outputs: Kept output channels, the same.
            weight_bits: Relaxed bit-widths, the same; between 7 and 8 times lie on a line.
            act_bits: Of the input, the same.
        """
        full_weights, full_input = (
            _bounded(bits - (KERNEL_BITS - 1)) for bits in (weight_bits, act_bits)
        )
        layer = torch.arange(len(self._ms))
        i, w = _place(self._inputs, inputs)
        j, v = _place(self._outputs, outputs)

        def at(grid: Tensor) -> Tensor:
            near = torch.lerp(grid[layer, i, j], grid[layer, i, j + 1], v)
            far = torch.lerp(grid[layer, i + 1, j], grid[layer, i + 1, j + 1], v)
            return torch.lerp(near, far, w)

        time = torch.lerp(at(self._ms), at(self._wide_ms), full_weights * full_input)
        clipped = (1.0 - full_input) * inputs / self._inputs[:, -1]
        return (time + self._clip_ms * clipped).sum(dim=1)


def _front(values: Sequence[Any], length: int) -> list[Any]:
    return [values[0]] * (max(length, 2) - len(values)) + list(values)


def _place(knots: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Interval of each value and how far into it, both `n x l`; knots are `l x k`, k >= 2."""
    found = torch.searchsorted(knots, value.detach().T.contiguous()).T
    left = (found - 1).clamp(0, knots.shape[1] - 2)
    layer = torch.arange(len(knots))
    low, high = knots[layer, left], knots[layer, left + 1]
    return left, _bounded((value - low) / (high - low).clamp_min(1e-9))


def _bounded(share: Tensor) -> Tensor:
    """A share kept to [0, 1]; not by `clamp`, whose gradient vanishes at these two ends as well."""
    beyond = (share.detach() < 0.0) | (share.detach() > 1.0)
    return torch.where(beyond, share.detach().clamp(0.0, 1.0), share)
