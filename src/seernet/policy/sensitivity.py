"""How much each coordinate alone disturbs the network, and what that says of a whole policy.

The divergence of a network that is compressed in one place from the one that is not, without any
training, is cheap to measure. It does not foretell an accuracy, but it ranks places: a residual
stream against an inner layer, the first block against the last. Its sum over coordinates is one
feature from which a predictor learns more than from many measurements of whole policies. HAWQ (Dong
et al. 2019) and its successors add up sensitivities in the same way, and stop there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from seernet import artifacts
from seernet.errors import ArtifactError
from seernet.policy.policy import FULL_BITS, Policy
from seernet.policy.space import Coordinate, SearchSpace

_FLOOR = 1e-4  # of the largest sum: bounds the square root's slope where nothing is disturbed


@dataclass(frozen=True)
class Probe:
    """One place at one level, all else being uncompressed.

    Attributes:
        kind: `pruning_ratio`, `weight_bits` or `act_bits`.
        name: The channel group or layer.
        value: Kept channels or bits.
    """

    kind: str
    name: str
    value: int


def probes(space: SearchSpace) -> list[Probe]:
    """What to measure: of each coordinate the two cheapest levels and the middle one.

    The dearest level counts as undisturbed, and what lies between is interpolated.
    """
    found = []
    for c in space.coordinates:
        levels = dict.fromkeys([*c.values[:2], c.values[len(c.values) // 2]])
        found += [Probe(c.kind, c.name, value) for value in levels if value < c.values[-1]]
    return found


def probe_policy(space: SearchSpace, probe: Probe) -> Policy:
    """The policy that compresses one place; bit-widths of 32 leave all others alone."""
    channels = {group.name: group.channels for group in space.graph.groups}
    ratios = dict.fromkeys(channels, 0.0)
    weight_bits = dict.fromkeys((layer.name for layer in space.graph.layers), FULL_BITS)
    act_bits = dict(weight_bits)
    if probe.kind == "pruning_ratio":
        ratios[probe.name] = 1.0 - probe.value / channels[probe.name]
    else:
        {"weight_bits": weight_bits, "act_bits": act_bits}[probe.kind][probe.name] = probe.value
    return Policy(ratios, weight_bits, act_bits)


class Sensitivity:
    """A feature of whole policies from the divergences of single places.

    Args:
        space: The search space.
        measured: Divergence at each probe. The smallest counts as none: what all have in common
            is due to no place.

    Raises:
        ArtifactError: If a coordinate of the space was not probed.
    """

    def __init__(self, space: SearchSpace, measured: Sequence[tuple[Probe, float]]) -> None:
        known: dict[tuple[str, str], dict[int, float]] = {}
        floor = min((divergence for _, divergence in measured), default=0.0)
        for probe, divergence in measured:
            known.setdefault((probe.kind, probe.name), {})[probe.value] = divergence - floor
        rows = [
            _row(c, positions, known.get((c.kind, c.name), {}))
            for c, positions in zip(space.coordinates, space.levels, strict=True)
        ]
        longest = max(len(positions) for positions, _ in rows)
        # Padding lies above 1, where no policy is.
        self._levels = torch.stack([_padded(p, longest, 2.0) for p, _ in rows])
        self._values = torch.stack([_padded(v, longest, 0.0) for _, v in rows])
        self._largest = self._values[:, 0].sum().clamp_min(1e-300)

    @classmethod
    def load(cls, space: SearchSpace, path: Path, stage: str) -> Sensitivity:
        """Read what `save_divergences` wrote.

        Raises:
            ArtifactError: If it is missing or damaged, or of another space; names `stage`.
        """
        document = artifacts.read_json(path, stage)
        try:
            measured = [
                (Probe(str(r["kind"]), str(r["name"]), int(r["value"])), float(r["divergence"]))
                for r in document["divergences"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path} is damaged ({error!r}); run `dvc repro {stage}`."
            ) from error
        return cls(space, measured)

    def __call__(self, u: Tensor) -> Tensor:
        """1 - sqrt(sum of divergences / the largest such sum) of relaxed policies.

        Args:
            u: `n x d` points in [0, 1].

        Returns:
            `n` numbers in [0, 1), differentiable, non-decreasing in every coordinate.
        """
        columns = u.T.contiguous()
        above = torch.searchsorted(self._levels, columns.detach(), right=True)
        above = above.clamp(1, self._levels.shape[1] - 1)
        low, high = self._levels.gather(1, above - 1), self._levels.gather(1, above)
        start, end = self._values.gather(1, above - 1), self._values.gather(1, above)
        total = (start + (columns - low) / (high - low) * (end - start)).sum(dim=0)
        share: Tensor = (total / self._largest + _FLOOR) / (1.0 + _FLOOR)
        return 1.0 - share.sqrt()


def save_divergences(path: Path, measured: Sequence[tuple[Probe, float]]) -> None:
    """Write measured divergences as JSON."""
    records = [{**asdict(probe), "divergence": divergence} for probe, divergence in measured]
    artifacts.write_json(path, {"divergences": records})


def _row(
    coordinate: Coordinate, positions: Tensor, known: dict[int, float]
) -> tuple[Tensor, Tensor]:
    """Positions of a coordinate's levels, and divergences there that never rise with them."""
    chosen = [i for i, value in enumerate(coordinate.values[:-1]) if value in known]
    if len(coordinate.values) == 1:
        return torch.tensor([0.0, 1.0]).double(), torch.zeros(2).double()
    if not chosen or chosen[0] != 0:
        raise ArtifactError(
            f"the sensitivity of {coordinate.kind} of {coordinate.name!r} was not measured; run "
            "the sample stage again."
        )
    values = torch.tensor([known[coordinate.values[i]] for i in chosen] + [0.0]).double()
    values = values.flip(0).cummax(dim=0).values.flip(0)
    return torch.cat([positions[chosen], positions[-1:]]), values


def _padded(row: Tensor, length: int, value: float) -> Tensor:
    steps = torch.arange(1, length - len(row) + 1, dtype=row.dtype)
    return torch.cat([row, value + steps * (value > 0)])
