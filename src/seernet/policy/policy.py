"""A policy: the pruning ratios and bit-widths of all layers of one network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seernet.errors import PolicyError

FULL_BITS = 32
KINDS = ("pruning_ratio", "weight_bits", "act_bits")


@dataclass(frozen=True)
class Policy:
    """How one network is compressed.

    Attributes:
        pruning_ratio: Fraction of channels removed, in [0, 1), for each channel group.
        weight_bits: Bit-width of the weights of each layer; 32 leaves them as they are.
        act_bits: Bit-width of the input of each layer; 32 leaves it as it is.
    """

    pruning_ratio: Mapping[str, float]
    weight_bits: Mapping[str, int]
    act_bits: Mapping[str, int]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The policy as plain dictionaries, for JSON."""
        return {kind: dict(getattr(self, kind)) for kind in KINDS}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Policy:
        """Read what `to_dict` gave; other keys are ignored.

        Raises:
            PolicyError: If a part is missing or is not a (whole) number.
        """
        try:
            return cls(
                {str(k): float(v) for k, v in document["pruning_ratio"].items()},
                _whole_numbers(document["weight_bits"]),
                _whole_numbers(document["act_bits"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise PolicyError(f"not a policy: {error!r}.") from error

    def to_row(self) -> dict[str, float | int]:
        """One flat row of a table: `pruning_ratio/<group>`, `weight_bits/<layer>`, ..."""
        return {
            f"{kind}/{name}": value for kind in KINDS for name, value in getattr(self, kind).items()
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Policy:
        """Read what `to_row` gave; other columns are ignored."""
        parts: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        for column, value in row.items():
            kind, separator, name = str(column).partition("/")
            if separator and kind in parts:
                parts[kind][name] = value
        return cls.from_dict(parts)

    def key(self) -> str:
        """A canonical text: equal for equal policies, whatever the order of their entries."""
        return json.dumps(self.to_dict(), sort_keys=True)


def _whole_numbers(entries: Mapping[str, Any]) -> dict[str, int]:
    """Bit-widths, also where a table stores them as reals."""
    bits = {str(name): int(float(value)) for name, value in entries.items()}
    for name, value in entries.items():
        if float(value) != bits[str(name)]:
            raise ValueError(f"{value} bits for {name}")
    return bits
