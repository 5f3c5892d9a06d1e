"""One pass over all images: each is decoded to the end, at most a few are held at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seernet.data.images import UnreadableImageError, fit, stretch, to_array
from seernet.data.listing import Listing, shorten
from seernet.progress import bar

_CHUNK = 256  # images submitted at once: bounds what waits in memory


@dataclass
class Survey:
    """What the pass found, for `n` images.

    Attributes:
        sums: `n x C` sums of an image's pixels, 0..255.
        squares: `n x C` sums of their squares.
        digests: `n` SHA-256 digests of the images' contents.
        pixels: `n x C x H x W`, where they were asked for.
        complaints: Unreadable images and unequal sizes.
        notes: How many images had which oddity.
    """

    sums: NDArray[np.int64]
    squares: NDArray[np.int64]
    digests: list[bytes]
    pixels: NDArray[np.uint8] | None
    complaints: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Seen:
    """One decoded image; `pixels` is None where its size is not the common one."""

    digest: bytes
    notes: tuple[str, ...]
    size: tuple[int, int]
    pixels: NDArray[np.uint8] | None


def native_size(listing: Listing) -> tuple[int, int] | None:
    """Return height and width of the first readable image; None if there is none."""
    for number in range(len(listing)):
        try:
            image = listing.read(number).image
        except UnreadableImageError:
            continue
        return image.height, image.width
    return None


def survey(
    listing: Listing, size: tuple[int, int], *, resize: bool, keep: bool, progress: bool
) -> Survey:
    """Decode every image, measure it, and collect what is wrong.

    Threads do the decoding (Pillow releases the interpreter's lock for it).

    Args:
        listing: What to read.
        size: Height and width that images are brought to, in pixels.
        resize: Whether to crop and resize (images with boxes are stretched instead); otherwise
            another size is a complaint.
        keep: Whether to keep the pixels.
        progress: Whether to draw a progress bar on stderr.

    Returns:
        Sums, digests, pixels and findings; independent of the number of threads.
    """
    n, channels = len(listing), listing.channels
    result = Survey(
        sums=np.zeros((n, channels), np.int64),
        squares=np.zeros((n, channels), np.int64),
        digests=[b""] * n,
        pixels=np.zeros((n, channels, *size), np.uint8) if keep else None,
    )
    unreadable, unequal = [], []
    seen = _read_all(listing, size, resize)
    shown = bar(n, "reading images", "image") if progress else None
    for number, image in enumerate(seen):
        if shown is not None:
            shown.update()
        if isinstance(image, UnreadableImageError):
            unreadable.append(f"{listing.names[number]} ({image})")
        elif image.pixels is None:
            unequal.append(f"{listing.names[number]} ({image.size[0]} x {image.size[1]})")
        else:
            _record(result, number, image.digest, image.pixels)
            result.notes.update(image.notes)
    if shown is not None:
        shown.close()
    if unreadable:
        result.complaints.append(
            f"{len(unreadable)} of {n} images cannot be read: {shorten(unreadable)}; "
            "replace or remove them."
        )
    if unequal:
        result.complaints.append(
            f"images differ in size: most are {size[0]} x {size[1]} (height x width), "
            f"{len(unequal)} are not: {shorten(unequal)}; set data.image_size."
        )
    return result


def _read_all(
    listing: Listing, size: tuple[int, int], resize: bool
) -> Iterator[_Seen | UnreadableImageError]:
    bring = fit if listing.boxes is None else stretch

    def look(number: int) -> _Seen | UnreadableImageError:
        try:
            picture = listing.read(number)
        except UnreadableImageError as error:
            return error
        image = bring(picture.image, size) if resize else picture.image
        found = (image.height, image.width)
        pixels = to_array(image) if found == size else None
        return _Seen(picture.digest, picture.notes, found, pixels)

    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        for start in range(0, len(listing), _CHUNK):
            yield from pool.map(look, range(start, min(start + _CHUNK, len(listing))))


def _record(result: Survey, number: int, digest: bytes, pixels: NDArray[np.uint8]) -> None:
    flat = pixels.reshape(len(pixels), -1)
    result.digests[number] = digest
    result.sums[number] = flat.sum(axis=1, dtype=np.int64)
    result.squares[number] = np.square(flat, dtype=np.uint16).sum(axis=1, dtype=np.int64)
    if result.pixels is not None:
        result.pixels[number] = pixels
