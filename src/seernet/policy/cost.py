"""What a policy costs, from the network's graph alone: BOPs, MACs and bytes.

BOPs(p) = sum over layers of MACs x kept_in x kept_out x weight_bits x act_bits, the kept fraction
counted once for depthwise layers; linear layers and the first and last layer are counted too, and
parts that stay whole count at 32 x 32. On a discrete policy every value is exact: all terms are
integers below 2^53, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from seernet.policy.policy import FULL_BITS
from seernet.policy.space import SearchSpace

FLOAT_BYTES = 4


class Costs(NamedTuple):
    """Costs of `n` policies, each a float64 tensor of `n`, differentiable.

    Attributes:
        bops: Bit operations of one image.
        macs: Multiply-accumulates of one image.
        size_bytes: Packed weights; one float32 scale an output channel of a quantized layer, one
            for its input, and one a tensor that enters an add or a concatenation; float32 biases
            (batch norms folded); everything else in float32.
        parameters: Weights, biases and normalisations, as elements.
    """

    bops: Tensor
    macs: Tensor
    size_bytes: Tensor
    parameters: Tensor


class CostModel:
    """Costs of relaxed and discrete policies of one space, vectorised.

    Args:
        space: The search space, which knows the graph.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        graph = space.graph
        column = {(c.kind, c.name): i for i, c in enumerate(space.coordinates)}
        self._groups = {g.name: (column["pruning_ratio", g.name], g.channels) for g in graph.groups}
        layers = graph.layers
        bits = [
            [column.get((kind, layer.name), -1) for layer in layers]
            for kind in ("weight_bits", "act_bits")
        ]
        self._weight_column, self._act_column = torch.tensor(bits)
        fixed = [float(space.fixed_bits.get(layer.name, 0)) for layer in layers]
        self._fixed = torch.tensor(fixed, dtype=torch.float64)
        self._inputs = self._mixing([(x.in_features, x.inputs) for x in layers])
        self._outputs = self._mixing([(x.out_features, x.outputs) for x in layers])
        self._norms = self._mixing([(x.features, x.inputs) for x in graph.norms])
        self._norm_floats = torch.tensor([x.floats for x in graph.norms], dtype=torch.float64)
        self._depthwise = torch.tensor([x.depthwise for x in layers])
        pairs = [x.out_features * (1 if x.depthwise else x.in_features) for x in layers]
        self._macs = _ratios([x.macs for x in layers], pairs)
        self._weights = _ratios([x.weights for x in layers], pairs)
        self._bias = torch.tensor([float(x.bias) for x in layers], dtype=torch.float64)
        self._merges = graph.merges
        self._whole_macs = float(sum(x.macs for x in graph.whole))
        self._whole_parameters = float(sum(x.parameters for x in graph.whole))

    def __call__(self, u: Tensor) -> Costs:
        """Costs of relaxed policies.

        Args:
            u: `n x d` points in [0, 1].

        Returns:
            The costs of each.
        """
        value = self.space.physical(u)
        weight_bits = self._bits(value, self._weight_column)
        return self._costs(value, weight_bits, self._bits(value, self._act_column))

    def baseline(self) -> Costs:
        """Costs of the uncompressed network at 32 bits; tensors of one."""
        value = torch.tensor([[float(c.values[-1]) for c in self.space.coordinates]])
        full = torch.full((1, len(self._fixed)), float(FULL_BITS), dtype=torch.float64)
        return self._costs(value.double(), full, full)

    def layer_macs(self, u: Tensor) -> Tensor:
        """MACs of each layer, `n x layers`."""
        return _times(self._macs, self._kept_pairs(self.space.physical(u)))

    def _costs(self, value: Tensor, weight_bits: Tensor, act_bits: Tensor) -> Costs:
        pairs = self._kept_pairs(value)
        macs, weights = _times(self._macs, pairs), _times(self._weights, pairs)
        outputs = self._kept(value, self._outputs)
        norms = self._kept(value, self._norms) @ self._norm_floats + self._whole_parameters
        scales = (weight_bits < FULL_BITS) * outputs + (act_bits < FULL_BITS)
        quantized = (torch.minimum(weight_bits, act_bits) < FULL_BITS).any(dim=1)
        floats = (self._bias * outputs + scales).sum(dim=1) + quantized * self._merges
        return Costs(
            bops=(macs * weight_bits * act_bits).sum(dim=1) + self._whole_macs * FULL_BITS**2,
            macs=macs.sum(dim=1) + self._whole_macs,
            size_bytes=(weights * weight_bits / 8.0).sum(dim=1) + FLOAT_BYTES * (floats + norms),
            parameters=(weights + self._bias * outputs).sum(dim=1) + norms,
        )

    def _kept_pairs(self, value: Tensor) -> Tensor:
        """Kept (input, output) channel pairs of each layer, `n x layers`."""
        inputs = self._kept(value, self._inputs)
        outputs = self._kept(value, self._outputs)
        return torch.where(self._depthwise, outputs, inputs * outputs)

    def _bits(self, value: Tensor, column: Tensor) -> Tensor:
        return torch.where(column >= 0, value[:, column.clamp(min=0)], self._fixed)

    def _mixing(self, rows: list[tuple[int, Mapping[str, int]]]) -> tuple[Tensor, Tensor]:
        """Constant and matrix that turn kept channels into kept features."""
        constant = torch.zeros(len(rows), dtype=torch.float64)
        matrix = torch.zeros(len(rows), self.space.dimension, dtype=torch.float64)
        for row, (features, shares) in enumerate(rows):
            constant[row] = features
            for name, count in shares.items():
                index, channels = self._groups[name]
                matrix[row, index] = count // channels
                constant[row] -= count
        return constant, matrix

    @staticmethod
    def _kept(value: Tensor, mixing: tuple[Tensor, Tensor]) -> Tensor:
        constant, matrix = mixing
        return constant + value @ matrix.T


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
