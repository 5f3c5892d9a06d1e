"""Train, search and test: disjoint, stratified by class, fixed by the seed.

What the source does not divide itself is held out of its training images: of every class the
rounded fraction, at least one image, and at least one is left for every split still to come.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seernet.data.listing import Labels, SplitNames, shorten


def hold_out(
    labels: Labels, splits: SplitNames, fractions: dict[str, float], seed: int
) -> SplitNames:
    """Divide the training images, for every split that the source lacks.

    Args:
        labels: `n` class indices.
        splits: `n` names of splits, as the source has them.
        fractions: For each split that may be missing, the share of the images still called
            `train` that it gets; filled in this order.
        seed: Decides which images.

    Returns:
        `n` names of splits. Classes that `shortages` complains of are divided as far as they go.
    """
    result = splits.astype("<U6")
    missing = [name for name in fractions if name not in splits]
    for label in np.unique(labels):
        pool = np.flatnonzero((labels == label) & (splits == "train"))
        pool = np.random.default_rng([seed, int(label)]).permutation(pool)
        for place, name in enumerate(missing):
            still_needed = len(missing) - place  # the later splits, and train itself
            rounded = int(np.floor(len(pool) * fractions[name] + 0.5))
            count = max(0, min(max(1, rounded), len(pool) - still_needed))
            result[pool[:count]] = name
            pool = pool[count:]
    return result


def shortages(
    labels: Labels, splits: SplitNames, classes: Sequence[str], missing: Sequence[str]
) -> list[str]:
    """Name the classes with too few training images to appear in every split.

    Args:
        labels: `n` class indices.
        splits: `n` names of splits, as the source has them.
        classes: Class names.
        missing: Splits that are held out of the training images.

    Returns:
        Complaints: none, or one.
    """
    counts = np.bincount(labels[splits == "train"], minlength=len(classes))
    needed = len(missing) + 1
    short = [
        f"{name!r} ({count})"
        for name, count in zip(classes, counts, strict=True)
        if 0 < count < needed
    ]
    if not short:
        return []
    return [
        f"a class needs at least {needed} training images, one for each of train, "
        f"{', '.join(missing)}; too few in {shorten(short)}; add images or remove the class."
    ]
