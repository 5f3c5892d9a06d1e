"""The grid of discrete policies, and the moves of one or two coordinates on it."""

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
        """The cheapest corner, `d`."""
        return self.values[:, 0]

    @property
    def high(self) -> Tensor:
        """The dearest corner, `d`."""
        return self.values[:, -1]

    def policies(self, indices: Tensor) -> Tensor:
        """Coordinates at level indices, both `n x d`."""
        return self.values.gather(1, indices.T).T

    def floor(self, u: Tensor) -> Tensor:
        """Indices of the highest levels not above `n x d` coordinates; never dearer."""
        # A coordinate on its level must not fall to the one below by rounding.
        below = self.values.unsqueeze(0) <= u.unsqueeze(2) + 1e-9  # n x d x k
        return (below.sum(dim=2) - 1).clamp_min(0).minimum(self.sizes - 1)

    def nearest(self, u: Tensor) -> Tensor:
        """Indices of the levels nearest to `n x d` coordinates; may be dearer."""
        return (self.values.unsqueeze(0) - u.unsqueeze(2)).abs().argmin(dim=2)

    def single_moves(self, indices: Tensor, reach: int) -> tuple[Tensor, Tensor]:
        """All moves of one coordinate by up to `reach` levels from one point (`d`).

        Returns:
            Coordinates and steps (levels, never 0), `m` each.
        """
        steps = torch.cat([torch.arange(-reach, 0), torch.arange(1, reach + 1)])
        target = indices.unsqueeze(1) + steps  # d x 2 reach
        allowed = (target >= 0) & (target < self.sizes.unsqueeze(1))
        coordinate, column = allowed.nonzero(as_tuple=True)
        return coordinate, steps[column]


def moved(indices: Tensor, *moves: tuple[Tensor, Tensor]) -> Tensor:
    """Copies of one point (`d`), each with its moves applied: `m x d`.

    Args:
        indices: Level indices, `d`.
        moves: Pairs of coordinates and steps, `m` each; row i of every pair acts on copy i.
    """
    copies = indices.repeat(len(moves[0][0]), 1)
    rows = torch.arange(len(copies))
    for coordinate, step in moves:
        copies[rows, coordinate] += step
    return copies
