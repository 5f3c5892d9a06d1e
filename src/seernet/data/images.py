"""Reading one image file: every mode that Pillow knows, brought to 8-bit gray or RGB.

Transparency is laid onto white. 16-bit gray is divided by 257, so that 65535 becomes 255. EXIF
orientation is applied. Of an animation the first frame is taken. Files are decoded to the end, so
a truncated one is noticed here and not in the middle of training.
"""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from seernet.errors import DataError

SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
    }
)
"""File name endings, in lower case, that count as images."""

ORIENTATION = 0x0112  # EXIF tag
MAX_FILE_BYTES = 1 << 30
# What a file holds counts, not its ending; but Pillow knows formats that run other programs, too.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MODES = {1: "L", 3: "RGB"}
# What Pillow's decoders raise on damaged files, beside OSError.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zlib.error,
)


class UnreadableImageError(DataError):
    """A file holds no usable image; the message is the cause, without the file's name."""


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        image: Upright, mode `L` or `RGB`.
        digest: SHA-256 of the file's bytes (of the pixels, where there is no file).
        notes: Oddities that were handled.
    """

    image: Image.Image
    digest: bytes
    notes: tuple[str, ...]


def read_image(path: Path, channels: int) -> Picture:
    """Read, decode completely and normalise the mode of one image file.

    Args:
        path: The file.
        channels: 1 for gray, 3 for RGB.

    Returns:
        The upright 8-bit image.

    Raises:
        UnreadableImageError: If the file is missing, damaged, too large, or of a pixel type that
            has no natural 8-bit form.
    """
    try:
        content = _content(path)
        picture, notes = _normalise(open_image(io.BytesIO(content)), channels)
    except UnreadableImageError:
        raise
    except FileNotFoundError as error:
        raise UnreadableImageError("the file does not exist") from error
    except UnidentifiedImageError as error:
        cause = "not an image of a known format" if content else "the file is empty"
        raise UnreadableImageError(cause) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(_too_large("its header")) from error
    except BROKEN as error:
        raise UnreadableImageError(f"{error}" or type(error).__name__) from error
    return Picture(picture, hashlib.sha256(content).digest(), tuple(notes))


def open_image(source: Path | io.BytesIO) -> Image.Image:
    """Open an image of the formats that count as such; its pixels are not decoded yet."""
    return Image.open(source, formats=_FORMATS)


def _content(path: Path) -> bytes:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableImageError("not a regular file")
    if found.st_size > MAX_FILE_BYTES:
        raise UnreadableImageError(
            f"{found.st_size} bytes, and images may have {MAX_FILE_BYTES}; make it smaller"
        )
    return path.read_bytes()


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Crop the centre to the aspect ratio of `size` (height, width), then resize (bilinear)."""
    height, width = size
    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)


def stretch(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize to `size` (height, width; bilinear), whatever that does to the aspect ratio."""
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def to_array(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the pixels of an `L` or `RGB` image as channels x height x width."""
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _normalise(image: Image.Image, channels: int) -> tuple[Image.Image, list[str]]:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise UnreadableImageError(_too_large(f"{image.width} x {image.height} pixels"))
    notes = []
    if getattr(image, "is_animated", False):
        notes.append("animations read as their first frame")
    image.load()
    if image.getexif().get(ORIENTATION, 1) in range(2, 9):
        notes.append("images turned upright by their EXIF orientation")
        image = ImageOps.exif_transpose(image)
    if image.mode in ("RGB", "L") and not image.has_transparency_data:
        upright = image
    else:
        upright, note = _to_eight_bits(image)
        notes.append(note)
    mode = _MODES[channels]
    if upright.mode != mode:
        notes.append("gray images read as RGB" if channels == 3 else "color images read as gray")
        upright = upright.convert(mode)
    return upright, notes


def _to_eight_bits(image: Image.Image) -> tuple[Image.Image, str]:
    """Bring any mode to `L` or `RGB`, and say what was done."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _scale_sixteen_bits(image), "16-bit images scaled to 8 bits"
    if image.has_transparency_data:
        gray = image.mode in ("L", "LA", "La")
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        flat = Image.alpha_composite(white, opaque).convert("L" if gray else "RGB")
        return flat, "images with transparency laid onto white"
    if image.mode == "1":
        return image.convert("L"), "black-and-white images read as gray"
    if image.mode == "F":
        raise UnreadableImageError("floating-point pixels; save it with 8 or 16 bits a channel")
    note = "palette" if image.mode == "P" else image.mode
    return image.convert("RGB"), f"{note} images read as RGB"


def _scale_sixteen_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int32)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImageError("32-bit pixels; save it with 8 or 16 bits a channel")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _too_large(received: str) -> str:
    limit = Image.MAX_IMAGE_PIXELS
    return f"{received}: more than {limit} pixels, a decompression bomb; make it smaller"
