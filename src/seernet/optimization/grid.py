"""The grid of discrete policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Allowed values of each coordinate.

    Attributes:
        values: `d x k`, increasing; a shorter row repeats its last value.
        sizes: `d` numbers of values.
    """

    values: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, levels: Sequence[Tensor]) -> Grid:
        """Collect `d` vectors of increasing levels."""
        longest = max(len(level) for level in levels)
        rows = [torch.cat([level, level[-1:].expand(longest - len(level))]) for level in levels]
        return cls(torch.stack(rows), torch.tensor([len(level) for level in levels]))

    @property
    def low(self) -> Tensor:
        """The lower corner, `d`."""
        return self.values[:, 0]

    @property
    def high(self) -> Tensor:
        """The upper corner, `d`."""
        return self.values[:, -1]

    def policies(self, indices: Tensor) -> Tensor:
        """Coordinates at level indices, both `n x d`."""
        return self.values[torch.arange(len(self.sizes)), indices]

    def floor(self, u: Tensor) -> Tensor:
        """Indices of the highest levels not above `n x d` coordinates."""
        # A coordinate on its level must not fall to the one below by rounding.
        below = self.values.unsqueeze(0) <= u.unsqueeze(2) + 1e-9  # n x d x k
        return (below.sum(dim=2) - 1).clamp_min(0).minimum(self.sizes - 1)

    def nearest(self, u: Tensor) -> Tensor:
        """Indices of the levels nearest to `n x d` coordinates; may be dearer."""
        return (self.values.unsqueeze(0) - u.unsqueeze(2)).abs().argmin(dim=2)
