"""Each mode of image file gives hand-computed gray or RGB values, or a cause."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from seernet.data.boxes import image_size
from seernet.data.defects import Defects
from seernet.data.images import (
    MAX_FILE_BYTES,
    ORIENTATION,
    UnreadableImageError,
    fit,
    read_image,
    to_array,
)


def _saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def _pixel(path: Path, channels: int = 3) -> tuple[int, ...]:
    return tuple(to_array(read_image(path, channels).image)[:, 0, 0].tolist())


@pytest.mark.parametrize(
    ("mode", "value", "rgb"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),  # transparent is white
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),  # 255 * (1 - 51/255)
        ("LA", (100, 255), (100, 100, 100)),
        ("LA", (0, 51), (204, 204, 204)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 257 * 77, (77, 77, 77)),
        ("I;16", 255, (1, 1, 1)),  # 255 / 257 rounds to 1, it is not clipped to 255
    ],
)
def test_png_mode_gives_rgb(tmp_path: Path, mode: str, value: object, rgb: tuple) -> None:
    path = _saved(Image.new(mode, (4, 3), value), tmp_path / "a.png")
    assert _pixel(path) == rgb


def test_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert _pixel(_saved(image, tmp_path / "a.png")) == (200, 100, 50)


def test_transparent_palette_entry_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert _pixel(_saved(image, tmp_path / "a.png", transparency=1)) == (255, 255, 255)


def test_cmyk_without_ink_is_white_and_with_cyan_lacks_red(tmp_path: Path) -> None:
    white = _saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), tmp_path / "w.jpg", quality=100)
    cyan = _saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), tmp_path / "c.jpg", quality=100)
    assert _pixel(white) == (255, 255, 255)
    assert np.abs(np.subtract(_pixel(cyan), (0, 255, 255))).max() <= 2


def test_color_read_as_gray_is_luma(tmp_path: Path) -> None:
    path = _saved(Image.new("RGB", (2, 2), (255, 0, 0)), tmp_path / "a.png")
    assert _pixel(path, channels=1) == (76,)  # 0.299 * 255 (ITU-R 601)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16", "CMYK"])
def test_handled_mode_leaves_a_note(tmp_path: Path, mode: str) -> None:
    path = _saved(Image.new(mode, (2, 2)), tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    assert read_image(path, 3).notes


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4), (0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a turn by 90 degrees clockwise
    upright = read_image(_saved(image, tmp_path / "a.png", exif=exif), 3).image
    assert upright.size == (4, 6)
    assert upright.getpixel((3, 0)) == (255, 0, 0)


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (2, 2), value) for value in (0, 255)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert _pixel(path) == (0, 0, 0)
    assert "animations read as their first frame" in read_image(path, 3).notes


def test_truncated_file_is_unreadable_at_any_length(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ("jpg", "png"):
        whole = _saved(Image.fromarray(noise), tmp_path / f"a.{suffix}").read_bytes()
        for share in (0.0, 0.01, 0.3, 0.6, 0.9):
            (tmp_path / "cut").write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(UnreadableImageError):
                read_image(tmp_path / "cut", 3)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow on damaged tags
def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    noise = Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    unreadable = 0
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp"):
        whole = np.frombuffer(_saved(noise, tmp_path / f"a.{suffix}").read_bytes(), np.uint8)
        for _ in range(25):
            broken = whole.copy()
            broken[draw.integers(0, min(len(whole), 200), 8)] = draw.integers(0, 256, 8)
            (tmp_path / "broken").write_bytes(broken.tobytes())
            try:
                read_image(tmp_path / "broken", 3)
            except UnreadableImageError:
                unreadable += 1
    assert unreadable > 0


def test_missing_and_empty_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="does not exist"):
        read_image(tmp_path / "none.png", 3)
    (tmp_path / "empty.png").touch()
    with pytest.raises(UnreadableImageError, match="empty"):
        read_image(tmp_path / "empty.png", 3)


@pytest.mark.parametrize("limit", [10, 20])  # 28 pixels: beyond twice the limit Pillow raises
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_giant_image_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path = _saved(Image.new("L", (7, 4)), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UnreadableImageError, match=f"more than {limit} pixels"):
        read_image(path, 3)


def _giant(suffix: str, side: int) -> bytes:
    """A small file whose header claims `side` x `side` pixels."""
    buffer = io.BytesIO()
    names = {"tif": "TIFF", "jpg": "JPEG", "pgm": "PPM"}
    Image.new("L", (301, 301)).save(buffer, names.get(suffix, suffix.upper()))
    content, real, fake = buffer.getvalue(), (301).to_bytes(2, "little"), side.to_bytes(2, "little")
    match suffix:
        case "pgm":
            return content.replace(b"301 301", f"{side} {side}".encode())
        case "png":
            header = b"IHDR" + side.to_bytes(4) * 2 + content[24:29]
            return content[:12] + header + zlib.crc32(header).to_bytes(4) + content[33:]
        case "jpg":
            return content.replace(real[::-1] * 2, fake[::-1] * 2)
    return content.replace(real, fake)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "pgm"])
def test_pixels_of_a_giant_header_are_never_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    def load(_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(_giant(suffix, 65000))
    with pytest.raises(UnreadableImageError, match="decompression bomb; make it smaller"):
        read_image(path, 3)


def test_a_giant_or_endless_file_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Path, "read_bytes")
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(UnreadableImageError, match=f"{MAX_FILE_BYTES + 1} bytes"):
        read_image(tmp_path / "a.png", 3)
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(UnreadableImageError, match="not a regular file"):
        read_image(tmp_path / "b.png", 3)


def test_content_counts_and_not_the_ending(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 3), (10, 20, 30))
    image.save(tmp_path / "a.jpg", "PNG")
    assert _pixel(tmp_path / "a.jpg") == (10, 20, 30)
    (tmp_path / "text.png").write_text("no image")
    # Of what Pillow knows beside images, some formats (EPS) start another program.
    for kind in ("EPS", "PDF", "ICO", "PCX"):
        image.save(tmp_path / f"{kind}.png", kind)
    for name in ("text", "EPS", "PDF", "ICO", "PCX"):
        with pytest.raises(UnreadableImageError, match="not an image of a known format"):
            read_image(tmp_path / f"{name}.png", 3)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow on damaged tags
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_size_of_a_damaged_image_is_a_size_or_a_complaint(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    noise = Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    complaints = 0
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp"):
        options = {} if suffix in ("gif", "bmp") else {"exif": exif}
        path = _saved(noise, tmp_path / f"a.{suffix}", **options)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            broken = whole[: draw.integers(0, len(whole))] if draw.random() < 0.3 else whole.copy()
            places = draw.integers(0, max(1, min(len(broken), 200)), 6 if len(broken) else 0)
            broken = broken.copy()
            broken[places] = draw.integers(0, 256, len(places))
            path.write_bytes(broken.tobytes())
            defects = Defects(False)
            size = image_size(path, (16, 16), "a.xml", defects)
            if size is None:
                (complaint,) = defects.complaints
                assert path.name in complaint
                complaints += 1
            else:
                assert min(size) > 0
    assert complaints > 100


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = _saved(Image.new("F", (2, 2), 0.5), tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match="floating-point"):
        read_image(path, 3)


def test_fit_crops_the_center_without_stretching() -> None:
    image = Image.new("L", (6, 2), 0)
    image.paste(200, (2, 0, 4, 2))
    assert to_array(fit(image, (2, 2))).tolist() == [[[200, 200], [200, 200]]]
