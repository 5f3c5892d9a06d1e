"""A data set before it is checked: which images there are, and how to read each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seernet.data.images import Picture

if TYPE_CHECKING:
    from seernet.data.boxes import Boxes

Labels: TypeAlias = NDArray[np.int64]
SplitNames: TypeAlias = NDArray[np.str_]

SHOWN = 10


@dataclass(frozen=True)
class Listing:
    """The images of a data set, in an order that does not depend on the file system.

    Attributes:
        name: `data.name` of the parameters.
        classes: Class names.
        channels: Channels that `read` returns.
        labels: `n` indices into `classes`, by which splits are stratified.
        splits: `n` names of splits, as the source divides its images.
        names: `n` names to show the user; for image files, the paths below the root.
        read: Reads the image of an id (its place in this listing).
        root: Folder of the image files, as the parameters give it; None where there are no files.
        complaints: Defects found while listing.
        warnings: Oddities found while listing.
        boxes: For detection, the boxes of the images, in their own pixels; else None.
        sizes: For detection, `n x 2` heights and widths; else None.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    labels: Labels
    splits: SplitNames
    names: Sequence[str]
    read: Callable[[int], Picture]
    root: str | None = None
    complaints: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    boxes: Boxes | None = None
    sizes: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def divided(self, splits: SplitNames) -> Listing:
        """Return the same listing with other splits."""
        return replace(self, splits=splits)


def shorten(items: Sequence[str]) -> str:
    """Join at most ten items, and say how many more there are."""
    rest = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
