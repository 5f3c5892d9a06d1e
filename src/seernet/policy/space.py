"""The search space: which policies exist, and the one encoding of a policy as a point.

A relaxed policy is u in [0, 1]^d; u = 0 is the cheapest policy, u = 1 the dearest, and neither cost
(but for latency) nor accuracy should fall when a coordinate rises. The coordinates are, in this
order, the kept channels of each prunable group, then the weight bits and then the input bits of
each layer that is not fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.config import SpaceConfig
from seernet.errors import PolicyError
from seernet.graph import NetworkGraph
from seernet.policy.policy import Policy


@dataclass(frozen=True)
class Coordinate:
    """One dimension of the space.

    Attributes:
        kind: `pruning_ratio`, `weight_bits` or `act_bits`.
        name: The channel group or layer.
        values: Allowed kept channels or bits, increasing.
    """

    kind: str
    name: str
    values: tuple[int, ...]


class SearchSpace:
    """All discrete policies of a network, and their relaxation.

    Args:
        graph: The traced network.
        config: The `space` section.

    Raises:
        PolicyError: If there is nothing to search.
    """

    def __init__(self, graph: NetworkGraph, config: SpaceConfig) -> None:
        self.graph = graph
        self.config = config
        edge = config.edge_bits
        self.fixed_bits = {
            layer.name: edge for layer in graph.layers if layer.edge and edge is not None
        }
        searched = [layer.name for layer in graph.layers if layer.name not in self.fixed_bits]
        self.coordinates: tuple[Coordinate, ...] = tuple(
            [
                Coordinate("pruning_ratio", group.name, _channel_counts(group.channels, config))
                for group in graph.groups
            ]
            + [Coordinate("weight_bits", name, tuple(config.weight_bits)) for name in searched]
            + [Coordinate("act_bits", name, tuple(config.act_bits)) for name in searched]
        )
        if not self.coordinates:
            raise PolicyError(
                "the network leaves nothing to search: it has no prunable channels and no layer "
                "besides the first and the last; set space.edge_bits to null."
            )
        if all(len(c.values) == 1 for c in self.coordinates):
            raise PolicyError(
                "the search space holds one policy only; allow more bits (space.weight_bits, "
                "space.act_bits) or pruning (space.max_pruning_ratio)."
            )
        self.low = torch.tensor([c.values[0] for c in self.coordinates], dtype=torch.float64)
        self.high = torch.tensor([c.values[-1] for c in self.coordinates], dtype=torch.float64)
        self._channels = {group.name: group.channels for group in graph.groups}

    @property
    def dimension(self) -> int:
        """Number of coordinates, d."""
        return len(self.coordinates)

    @property
    def ends(self) -> Tensor:
        """The cheapest and the dearest policy, `2 x d`."""
        return torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, self.dimension)

    @property
    def levels(self) -> list[Tensor]:
        """For each coordinate the relaxed positions of its allowed values, increasing."""
        return [
            self._position(index, torch.tensor(c.values, dtype=torch.float64))
            for index, c in enumerate(self.coordinates)
        ]

    def physical(self, u: Tensor) -> Tensor:
        """Kept channels and bits at relaxed points, exact integers where a point is discrete.

        Args:
            u: `n x d` relaxed policies.

        Returns:
            `n x d` channels and bits, differentiable.
        """
        value = self.low + u * (self.high - self.low)
        nearest = value.detach().round()
        snap = (value.detach() - nearest).abs() < 1e-9
        return value + snap * (nearest - value.detach())

    def round(self, u: Tensor) -> Tensor:
        """The discrete policies nearest to relaxed ones, `n x d`, as relaxed points."""
        columns = []
        for index, levels in enumerate(self.levels):
            nearest = (u[:, index, None] - levels).abs().argmin(dim=1)
            columns.append(levels[nearest])
        return torch.stack(columns, dim=1)

    def decode(self, u: Tensor) -> list[Policy]:
        """The discrete policies nearest to relaxed ones.

        Args:
            u: `n x d` relaxed policies.

        Returns:
            `n` policies, fixed layers included.
        """
        return [self._policy(row) for row in self.physical(self.round(u)).round().tolist()]

    def encode(self, policies: list[Policy]) -> Tensor:
        """The relaxed points of discrete policies, `n x d`.

        Raises:
            PolicyError: If a policy is not of this space.
        """
        rows = [self._row(policy) for policy in policies]
        values = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), self.dimension)
        span = (self.high - self.low).clamp(min=1e-300)
        return torch.where(self.high > self.low, (values - self.low) / span, 1.0)

    def kept_channels(self, policy: Policy) -> dict[str, int]:
        """Channels that stay in each group."""
        return {
            name: round((1.0 - policy.pruning_ratio.get(name, 0.0)) * channels)
            for name, channels in self._channels.items()
        }

    def _position(self, index: int, values: Tensor) -> Tensor:
        low, high = self.low[index], self.high[index]
        return (values - low) / (high - low) if high > low else torch.ones_like(values)

    def _policy(self, values: list[float]) -> Policy:
        names = [layer.name for layer in self.graph.layers]
        ratio: dict[str, float] = {}
        bits = {kind: dict.fromkeys(names, 0) for kind in ("weight_bits", "act_bits")}
        for fixed in bits.values():
            fixed.update(self.fixed_bits)
        for coordinate, value in zip(self.coordinates, values, strict=True):
            if coordinate.kind == "pruning_ratio":
                ratio[coordinate.name] = 1.0 - value / self._channels[coordinate.name]
            else:
                bits[coordinate.kind][coordinate.name] = int(value)
        return Policy(ratio, bits["weight_bits"], bits["act_bits"])

    def _row(self, policy: Policy) -> list[int]:
        self._check(policy)
        kept = self.kept_channels(policy)
        row = []
        for c in self.coordinates:
            value = kept[c.name] if c.kind == "pruning_ratio" else getattr(policy, c.kind)[c.name]
            if value not in c.values:
                what = "kept channels" if c.kind == "pruning_ratio" else c.kind
                raise PolicyError(
                    f"{what} of {c.name!r} must be one of {list(c.values)}, not {value}; the "
                    "policy belongs to another space."
                )
            row.append(value)
        return row

    def _check(self, policy: Policy) -> None:
        """Refuse a policy that names other groups and layers, or other fixed bits."""
        layers = {layer.name for layer in self.graph.layers}
        expected = {
            "pruning_ratio": set(self._channels),
            "weight_bits": layers,
            "act_bits": layers,
        }
        for kind, names in expected.items():
            odd = sorted(names ^ set(getattr(policy, kind)))
            if odd:
                raise PolicyError(
                    f"the policy's {kind} and the network differ in {', '.join(odd[:3])}; the "
                    "policy belongs to another network."
                )
        for name, bits in self.fixed_bits.items():
            for kind in ("weight_bits", "act_bits"):
                if getattr(policy, kind)[name] != bits:
                    raise PolicyError(
                        f"{kind} of {name!r} must be {bits} (space.edge_bits), not "
                        f"{getattr(policy, kind)[name]}; the policy belongs to another space."
                    )


def pruning_ratios(config: SpaceConfig) -> list[float]:
    """The grid of ratios, from 0 up."""
    steps = int(config.max_pruning_ratio / config.pruning_step + 1e-9)
    return [step * config.pruning_step for step in range(steps + 1)]


def _channel_counts(channels: int, config: SpaceConfig) -> tuple[int, ...]:
    """Reachable channel counts: the grid of ratios, rounded to the multiple, at least one."""
    counts = {channels}
    for ratio in pruning_ratios(config)[1:]:
        wanted = channels * (1.0 - ratio)
        multiple = config.channel_multiple
        rounded = max(multiple, round(wanted / multiple) * multiple)
        if rounded <= channels:
            counts.add(rounded)
    return tuple(sorted(counts))
