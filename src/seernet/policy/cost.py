"""What a policy costs, from the network's graph alone: BOPs, MACs, bytes and, from a table, time.

BOPs(p) = sum over layers of MACs x kept_in x kept_out x weight_bits x act_bits, the kept fraction
counted once for depthwise layers; linear layers and the first and last layer are counted too, and
parts that stay whole count at 32 x 32. On a discrete policy every value is exact: all terms are
integers below 2^53, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from seernet.errors import BudgetError
from seernet.policy.latency import Interpolation, LatencyTable
from seernet.policy.policy import FULL_BITS
from seernet.policy.space import SearchSpace

FLOAT_BYTES = 4
NO_TABLE = (
    "a limit on latency needs a latency table: set `latency.table`, and run `dvc repro latency`."
)


class Costs:
    """Costs of `n` policies, each a float64 tensor of `n`, differentiable, computed when asked for.

    Attributes:
        bops: Bit operations of one image.
        macs: Multiply-accumulates of one image.
        size_bytes: Packed weights; one float32 scale an output channel of a quantized layer, one
            for its input, and one a feature map that is stored (`models.maps`); float32 biases
            (batch norms folded); everything else in float32.
        parameters: Weights, biases and normalisations, as elements.
        values: Elements of all feature maps that layers give.
        latency_ms: Milliseconds of one image on the target of the latency table.
    """

    def __init__(self, model: CostModel, value: Tensor, weight_bits: Tensor, act_bits: Tensor):
        self._model = model
        self._value = value
        self._weight_bits, self._act_bits = weight_bits, act_bits

    @cached_property
    def layer_macs(self) -> Tensor:
        """MACs of each layer, `n x layers`."""
        return _times(self._model.macs_per_pair, self._pairs)

    @cached_property
    def bops(self) -> Tensor:
        bits = self._weight_bits * self._act_bits
        return (self.layer_macs * bits).sum(dim=1) + self._model.whole_macs * FULL_BITS**2

    @cached_property
    def macs(self) -> Tensor:
        return self.layer_macs.sum(dim=1) + self._model.whole_macs

    @cached_property
    def size_bytes(self) -> Tensor:
        model, low = self._model, self._weight_bits < FULL_BITS
        scales = low * self._kept[1] + (self._act_bits < FULL_BITS)
        quantized = (torch.minimum(self._weight_bits, self._act_bits) < FULL_BITS).any(dim=1)
        floats = (model.bias * self._kept[1] + scales).sum(dim=1) + quantized * model.maps
        packed = (self._weights * self._weight_bits / 8.0).sum(dim=1)
        return packed + FLOAT_BYTES * (floats + self._norms)

    @cached_property
    def parameters(self) -> Tensor:
        return (self._weights + self._model.bias * self._kept[1]).sum(dim=1) + self._norms

    @cached_property
    def latency_ms(self) -> Tensor:
        table, layers = self._model.latency, self._model.layer_times
        if table is None or layers is None:
            raise BudgetError(NO_TABLE)
        alone = layers(*self._kept, self._weight_bits, self._act_bits)
        return table.fixed_ms + table.factor * alone + table.ms_per_value * self.values

    @cached_property
    def values(self) -> Tensor:
        return self._kept[1] @ self._model.positions

    @cached_property
    def _kept(self) -> tuple[Tensor, Tensor]:
        """Kept input and output features of each layer, each `n x layers`."""
        inputs, outputs = self._model.features.apply(self._value).tensor_split(2, dim=1)
        return inputs, outputs

    @cached_property
    def _pairs(self) -> Tensor:
        """Kept (input, output) channel pairs of each layer, `n x layers`."""
        inputs, outputs = self._kept
        return torch.where(self._model.depthwise, outputs, inputs * outputs)

    @cached_property
    def _weights(self) -> Tensor:
        return _times(self._model.weights_per_pair, self._pairs)

    @cached_property
    def _norms(self) -> Tensor:
        """Elements of normalisations and of parts that stay whole, `n`."""
        model = self._model
        return model.norms.apply(self._value) @ model.norm_floats + model.whole_parameters


@dataclass(frozen=True)
class Mixing:
    """Turns kept channels of groups into kept features of layers: an affine map.

    Attributes:
        columns: Coordinates of a policy that are channel groups, `g`.
        constant: Features that no group owns, `m`.
        matrix: Features for each kept channel, `g x m`.
    """

    columns: Tensor
    constant: Tensor
    matrix: Tensor

    def apply(self, value: Tensor) -> Tensor:
        """Kept features, `n x m`, of policies' physical values, `n x d`."""
        return self.constant + value[:, self.columns] @ self.matrix


class CostModel:
    """Costs of relaxed and discrete policies of one space, vectorised.

    Args:
        space: The search space, which knows the graph.
        latency: Table of layers timed on the target, where there is one.

    Raises:
        ArtifactError: If the table is of another network.
    """

    def __init__(self, space: SearchSpace, latency: LatencyTable | None = None) -> None:
        self.space = space
        self.latency = latency
        graph = space.graph
        column = {(c.kind, c.name): i for i, c in enumerate(space.coordinates)}
        self._groups = {g.name: (column["pruning_ratio", g.name], g.channels) for g in graph.groups}
        layers = graph.layers
        kinds = ("weight_bits", "act_bits")
        bits = [column.get((kind, x.name), len(column)) for kind in kinds for x in layers]
        self._bits = torch.tensor(bits)
        fixed = [float(space.fixed_bits.get(x.name, 0)) for x in layers]
        self._fixed = torch.tensor(fixed + fixed, dtype=torch.float64)
        ends = [(x.in_features, x.inputs) for x in layers]
        ends += [(x.out_features, x.outputs) for x in layers]
        self.features = self._mixing(ends)
        self.norms = self._mixing([(x.features, x.inputs) for x in graph.norms])
        self.norm_floats = torch.tensor([x.floats for x in graph.norms], dtype=torch.float64)
        self.depthwise = torch.tensor([x.depthwise for x in layers])
        pairs = [x.out_features * (1 if x.depthwise else x.in_features) for x in layers]
        self.macs_per_pair = _ratios([x.macs for x in layers], pairs)
        self.weights_per_pair = _ratios([x.weights for x in layers], pairs)
        self.bias = torch.tensor([float(x.bias) for x in layers], dtype=torch.float64)
        self.positions = torch.tensor([x.macs / x.weights for x in layers], dtype=torch.float64)
        self.layer_times = None
        if latency is not None:
            latency.check(space)
            self.layer_times = Interpolation([latency.layers[x.name] for x in layers])
        self.maps = graph.maps
        self.whole_macs = float(sum(x.macs for x in graph.whole))
        self.whole_parameters = float(sum(x.parameters for x in graph.whole))

    def __call__(self, u: Tensor) -> Costs:
        """Costs of relaxed policies.

        Args:
            u: `n x d` points in [0, 1].

        Returns:
            The costs of each.
        """
        value = self.space.physical(u)
        # One column more, for layers whose bits are fixed; those are added.
        bits = torch.cat([value, value.new_zeros(len(value), 1)], dim=1)[:, self._bits]
        return Costs(self, value, *(bits + self._fixed).tensor_split(2, dim=1))

    def baseline(self) -> Costs:
        """Costs of the uncompressed network at 32 bits; tensors of one."""
        value = torch.tensor([[float(c.values[-1]) for c in self.space.coordinates]])
        full = torch.full((1, len(self.bias)), float(FULL_BITS), dtype=torch.float64)
        return Costs(self, value.double(), full, full)

    def _mixing(self, rows: list[tuple[int, Mapping[str, int]]]) -> Mixing:
        """The map from kept channels to these features: how many there are, and whose."""
        names = list(self._groups)
        place = {name: index for index, name in enumerate(names)}
        constant = torch.zeros(len(rows), dtype=torch.float64)
        matrix = torch.zeros(len(names), len(rows), dtype=torch.float64)
        for row, (features, shares) in enumerate(rows):
            constant[row] = features
            for name, count in shares.items():
                matrix[place[name], row] = count // self._groups[name][1]
                constant[row] -= count
        columns = torch.tensor([self._groups[name][0] for name in names], dtype=torch.long)
        return Mixing(columns, constant, matrix)


def _ratios(amounts: list[int], pairs: list[int]) -> tuple[Tensor, Tensor]:
    """Amount for each channel pair as a reduced fraction: small terms stay exact in float64."""
    common = [math.gcd(amount, pair) for amount, pair in zip(amounts, pairs, strict=True)]
    parts = [
        [value // divisor for value, divisor in zip(values, common, strict=True)]
        for values in (amounts, pairs)
    ]
    numerator, denominator = torch.tensor(parts, dtype=torch.float64)
    return numerator, denominator


def _times(ratio: tuple[Tensor, Tensor], pairs: Tensor) -> Tensor:
    numerator, denominator = ratio
    return numerator * pairs / denominator
