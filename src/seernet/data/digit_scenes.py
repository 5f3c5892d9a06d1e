"""`digit-scenes`: scikit-learn's handwritten digits on textured ground, with their boxes.

A small detection set that needs no download. Each scene holds one to four digits, 12 to 40 pixels
high at a side of 96, in a color of their own; they hardly overlap. The digits of test scenes appear
in no other scene. The scenes are always the same.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seernet.config import DataConfig
from seernet.data.boxes import Box, Boxes
from seernet.data.images import Picture
from seernet.data.listing import Listing

SIDE = 96
COUNTS = {"train": 1200, "test": 300}
_TEST_DIGITS = 360  # of 1797
_MOST = 4  # digits a scene
_HEIGHTS = (0.125, 0.42)  # of the side
_OVERLAP = 0.05  # intersection over the smaller box that is let pass
_INK = 0.3  # of full ink: what counts as the digit


def list_digit_scenes(config: DataConfig) -> Listing:
    """Render the scenes; `data.image_size` is their side, `data.channels` 1 or 3."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    side, channels = config.image_size or SIDE, config.channels or 3
    order = np.random.default_rng(0).permutation(len(digits.images))
    pools = {"test": order[:_TEST_DIGITS], "train": order[_TEST_DIGITS:]}
    images: list[NDArray[np.uint8]] = []
    rows: list[list[Box]] = []
    splits: list[str] = []
    for split, count in COUNTS.items():
        for number in range(count):
            random = np.random.default_rng([len(split), number])
            pixels, found = _scene(digits.images, digits.target, pools[split], side, random)
            images.append(pixels)
            rows.append(found)
            splits.append(split)
    boxes = Boxes.of(rows)

    def read(number: int) -> Picture:
        image = Image.fromarray(images[number])
        image = image if channels == 3 else image.convert("L")
        return Picture(image, hashlib.sha256(images[number].tobytes()).digest(), ())

    return Listing(
        name=config.name,
        classes=tuple(str(name) for name in digits.target_names),
        channels=channels,
        labels=boxes.rarest(len(rows), len(digits.target_names)),
        splits=np.array(splits, dtype="<U6"),
        names=[f"scene {number}" for number in range(len(rows))],
        read=read,
        boxes=boxes,
        sizes=np.full((len(rows), 2), side, dtype=np.int64),
    )


def _scene(
    digits: NDArray[np.float64],
    labels: NDArray[np.int64],
    pool: NDArray[np.int64],
    side: int,
    random: np.random.Generator,
) -> tuple[NDArray[np.uint8], list[Box]]:
    """One scene, `side x side x 3`, and its boxes."""
    canvas = _ground(side, random)
    boxes: list[Box] = []
    for _ in range(random.integers(1, _MOST + 1)):
        digit = int(random.choice(pool))
        height = round(side * random.uniform(*_HEIGHTS))
        width = max(3, round(height * random.uniform(0.7, 1.0)))
        ink = _resized(digits[digit] / 16.0, height, width)
        inked = np.argwhere(ink > _INK)
        (top, left), (bottom, right) = inked.min(axis=0), inked.max(axis=0) + 1
        y, x = (int(random.integers(0, side - extent + 1)) for extent in (height, width))
        corners = (float(x + left), float(y + top), float(x + right), float(y + bottom))
        if any(_overlap(corners, box.corners) > _OVERLAP for box in boxes):
            continue
        color = random.uniform(0.0, 255.0, 3)
        part = canvas[y : y + height, x : x + width]
        while abs(color.mean() - part.mean()) < 60.0:  # legible
            color = random.uniform(0.0, 255.0, 3)
        part += ink[..., None] * (color - part)
        boxes.append(Box(corners, int(labels[digit])))
    noisy = canvas + random.normal(0.0, 6.0, canvas.shape)
    return np.clip(noisy + 0.5, 0.0, 255.0).astype(np.uint8), boxes


def _ground(side: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Smooth color gradients under a few waves, `side x side x 3`."""
    y, x = np.mgrid[0:side, 0:side] / side
    canvas = np.zeros((side, side, 3))
    canvas += random.uniform(60.0, 195.0, 3)
    for _ in range(3):
        across, down = random.uniform(-12.0, 12.0, 2)
        wave = np.sin(2.0 * np.pi * (across * x + down * y) + random.uniform(0.0, 2.0 * np.pi))
        canvas += wave[..., None] * random.uniform(-18.0, 18.0, 3)
    return canvas


def _resized(digit: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    image = Image.fromarray(digit.astype(np.float32))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized, dtype=np.float64), 0.0, 1.0)


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over the area of the smaller box."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return max(0.0, across) * max(0.0, down) / smaller
