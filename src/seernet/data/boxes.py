"""The boxes of many images in flat arrays, and how one fits into its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seernet.data.defects import Defects
from seernet.data.images import BROKEN, ORIENTATION, open_image
from seernet.data.listing import shorten

TOLERANCE = 1.5  # pixels that a box may reach over the edge: tools count from 0 or from 1
SMALLEST = 1e-3  # pixels
BACKGROUND = "images without boxes: two-stage detectors learn background from them, SSDs nothing"
_FINDABLE = 4.0  # pixels: about the least that feature maps of stride 8 and more can tell
_MANY = 0.05


@dataclass(frozen=True)
class Boxes:
    """The `m` boxes of `n` images, ordered by image.

    Attributes:
        corners: float64 `m x 4`: left, top, right, bottom edge, in pixels.
        labels: int64 `m` class indices.
        crowd: bool `m`; such a box is not learned, and whether it is found does not count
            ("difficult" in PASCAL VOC, "iscrowd" in COCO).
        images: int64 `m`, the place of each box's image, ascending.
    """

    corners: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    images: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[Box]]) -> Boxes:
        """Gather the boxes of each image."""
        flat = [(box, image) for image, boxes in enumerate(rows) for box in boxes]
        return cls(
            np.array([box.corners for box, _ in flat], dtype=np.float64).reshape(-1, 4),
            np.array([box.label for box, _ in flat], dtype=np.int64),
            np.array([box.crowd for box, _ in flat], dtype=np.bool_),
            np.array([image for _, image in flat], dtype=np.int64),
        )

    def scaled(self, sizes: NDArray[np.int64], size: tuple[int, int]) -> Boxes:
        """Boxes of images that are stretched from `sizes` (`n x 2`, height and width) to `size`."""
        factors = np.array(size, dtype=np.float64) / sizes[self.images]  # m x 2
        corners = self.corners * factors[:, [1, 0, 1, 0]]
        limits = np.array([size[1], size[0]] * 2, dtype=np.float64)
        return Boxes(np.clip(corners, 0.0, limits), self.labels, self.crowd, self.images)

    def select(self, images: NDArray[np.int64]) -> Boxes:
        """Boxes of some images (ascending places), which are counted anew from 0."""
        mask = np.isin(self.images, images)
        places = np.searchsorted(images, self.images[mask])
        return Boxes(self.corners[mask], self.labels[mask], self.crowd[mask], places)

    def shortages(
        self, splits: NDArray[np.str_], classes: Sequence[str], missing: Sequence[str]
    ) -> list[str]:
        """Name the classes that too few training images show; see `splits.shortages`."""
        total = np.bincount(self.labels, minlength=len(classes))
        trained = self._shown(len(splits), len(classes))[splits == "train"].sum(axis=0)
        needed = len(missing) + 1
        short = [
            f"{name!r} ({count})"
            for name, count, all_of_it in zip(classes, trained, total, strict=True)
            if all_of_it and count < needed
        ]
        if not short:
            return []
        return [
            f"a class must be seen in at least {needed} training images, one for each of train"
            f"{''.join(f', {name}' for name in missing)}; too few in {shorten(short)}; add images, "
            "or leave the class out by data.classes and data.bad_boxes: drop."
        ]

    def unknown(self, classes: Sequence[str]) -> list[str]:
        """Name the classes without any box: nothing would teach them, nor score them."""
        counts = np.bincount(self.labels, minlength=len(classes))
        none = [repr(name) for name, count in zip(classes, counts, strict=True) if not count]
        if not none:
            return []
        return [
            f"no usable box is of {shorten(none)}; correct the annotations, or name the classes "
            "that there are in data.classes."
        ]

    def spread(
        self, splits: NDArray[np.str_], classes: int, missing: Sequence[str], seed: int
    ) -> NDArray[np.str_]:
        """Let every split that was held out show every class, and the training images too.

        An image shows several classes and was dealt by one of them. Where another is missing from
        a split, an image that shows it moves there, from a split that keeps all of its classes.

        Args:
            splits: `n` names of splits.
            classes: How many there are.
            missing: The splits that were held out.
            seed: Decides which image moves.

        Returns:
            `n` names of splits.
        """
        result = splits.copy()
        shown = self._shown(len(splits), classes)
        places = ("train", *missing) if missing else ()
        for label in np.argsort(shown.sum(axis=0), kind="stable"):
            for name in places:
                if shown[result == name, label].any():
                    continue
                stays = {place: shown[result == place].sum(axis=0) > 1 for place in places}
                pool = [
                    image
                    for image in np.flatnonzero(shown[:, label])
                    if result[image] in stays and stays[result[image]][shown[image]].all()
                ]
                if pool:
                    result[np.random.default_rng([seed, int(label)]).choice(pool)] = name
        return result

    def empty(self, splits: NDArray[np.str_]) -> list[str]:
        """Name the splits without any box that counts: nothing could be learned, or scored."""
        counting = set(splits[self.images[~self.crowd]].tolist())
        lacking = sorted(set(splits.tolist()) - counting)
        return [
            f"no image of the split {name} has a box that counts; give it others, or leave it out "
            "to have one drawn from the training images."
            for name in lacking
        ]

    def tiny(self, sizes: NDArray[np.int64], size: tuple[int, int]) -> list[str]:
        """Say if many boxes are too small to be found once images are stretched to `size`."""
        corners = self.scaled(sizes, size).corners
        sides = (corners[:, 2:] - corners[:, :2]).min(axis=1)
        share = float((sides < _FINDABLE).mean()) if len(sides) else 0.0
        if share < _MANY:
            return []
        return [
            f"{100 * share:.0f} % of the boxes are less than {_FINDABLE:g} pixels wide or high at "
            f"{size[0]} x {size[1]}, where hardly a detector finds them; raise data.image_size"
        ]

    def unseen(self, splits: NDArray[np.str_], classes: Sequence[str]) -> list[str]:
        """Name the classes that a split does not show, but in boxes that do not count."""
        shown = self._shown(len(splits), len(classes))
        found = []
        for split in sorted(set(splits.tolist())):
            there = shown[splits == split].any(axis=0)
            lacking = [repr(name) for name, seen in zip(classes, there, strict=True) if not seen]
            if lacking:
                found.append(f"no image of the split {split} shows {shorten(lacking)}")
        return found

    def _shown(self, images: int, classes: int) -> NDArray[np.bool_]:
        """Which images show which classes, to be learned and counted: `images x classes`."""
        shown = np.zeros((images, classes), dtype=np.bool_)
        shown[self.images[~self.crowd], self.labels[~self.crowd]] = True
        return shown

    def rarest(self, n: int, classes: int) -> NDArray[np.int64]:
        """The rarest class in each of `n` images, by which splits are stratified.

        Images without boxes are a kind of their own, `classes`.
        """
        counts = np.bincount(self.labels, minlength=classes)
        order = np.argsort(-counts[self.labels], kind="stable")  # the rarest comes last, and stays
        labels = np.full(n, classes, dtype=np.int64)
        labels[self.images[order]] = self.labels[order]
        return labels


@dataclass(frozen=True)
class Box:
    """One box; see `Boxes`."""

    corners: tuple[float, float, float, float]
    label: int
    crowd: bool = False


def inside(
    corners: Sequence[float], size: tuple[int, int], *, clip: bool = False
) -> tuple[tuple[float, float, float, float] | None, str]:
    """Bring a box into an image of `size` (height, width).

    Args:
        corners: Left, top, right and bottom edge.
        size: Of the image.
        clip: Whether a box that reaches further out is cut at the edge.

    Returns:
        Its corners, no more outside than by the way that tools count; or None, and what is wrong.
    """
    left, top, right, bottom = corners
    height, width = size
    if not np.isfinite(corners).all():
        return None, "a coordinate that is no number"
    if right < left or bottom < top:
        return None, "swapped corners"
    outside = max(-left, -top, right - width, bottom - height) > TOLERANCE
    if outside and not clip:
        return None, "a part outside of the image"
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
    if right - left < SMALLEST or bottom - top < SMALLEST:
        return None, "nothing inside of the image" if outside else "no area"
    return (left, top, right, bottom), ""


def note_if_cut(
    given: Sequence[float], kept: Sequence[float], shown: str, defects: Defects
) -> None:
    """Tell the user of a box that `inside` has cut by more than tools differ."""
    if max(abs(a - b) for a, b in zip(given, kept, strict=True)) > TOLERANCE:
        defects.note("boxes reach over the edge, and are cut there", shown)


def image_size(
    path: Path, told: tuple[int, int] | None, file: str, defects: Defects
) -> tuple[int, int] | None:
    """Height and width of an image as it is read (upright), from its header.

    Args:
        path: The image.
        told: What its annotation says, if it says anything.
        file: The annotation, to name it.
        defects: Takes what is wrong.

    Returns:
        None where the image cannot be used.
    """
    name = f"{path.parent.name}/{path.name}"
    try:
        with open_image(path) as opened:
            raw = (opened.height, opened.width)
            orientation = opened.getexif().get(ORIENTATION, 1)
    except (*BROKEN, Image.DecompressionBombError) as error:
        defects.other("images cannot be read", "replace or remove them", f"{name} ({error})")
        return None
    upright = raw[::-1] if orientation in range(5, 9) else raw
    if orientation in range(2, 9) and (told != upright or upright == raw):
        kind = "images are turned by their EXIF orientation, so their boxes are ambiguous"
        if defects.drop:
            defects.note(f"{kind}, and are left out", name)
        else:
            defects.other(kind, "save them upright, boxes likewise", name)
        return None
    if told is not None and told != upright:
        shown = f"{file} ({told[1]} x {told[0]}, the image {upright[1]} x {upright[0]})"
        # Of the same shape but another size, the image was resized after it was annotated.
        alike = abs(told[0] * upright[1] - told[1] * upright[0]) < 0.01 * told[1] * upright[0]
        resized = alike and abs(told[0] - upright[0]) > 0.02 * upright[0]
        if defects.drop and resized:
            defects.note("annotations are of the image at another size, and are left out", shown)
            return None
        if defects.drop:
            kind = "annotations give another size than the image has, and their corners are trusted"
            defects.note(kind, shown)
        else:
            remedy = (
                "correct them, or set data.bad_boxes: drop to leave out resized images, and trust "
                "the corners of others"
            )
            defects.other("annotations give another size than the image has", remedy, shown)
    return upright
