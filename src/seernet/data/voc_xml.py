"""One annotation of PASCAL VOC: an XML file, as many tools write it.

Any namespace and the encodings of Windows are taken; of the file only the size and the objects
count, so what else cannot be parsed (an ampersand in a path, a byte of another encoding) is no
reason to refuse it.
"""

from __future__ import annotations

import math
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "iso-8859-1": "cp1252", "ascii": "cp1252"}
_ENCODINGS = ("utf-8-sig", "cp1252", "latin-1")  # the last takes any byte
_AMPERSAND = re.compile(r"&(?!#?\w+;)")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class AnnotationError(ValueError):
    """A file that is no annotation."""


@dataclass(frozen=True)
class Object:
    """One object of an image.

    Attributes:
        name: Its class, in one of the ways in which Unicode can write it, without idle space.
        corners: Left, top, right and bottom edge in pixels, counted from 0; None where they are not
            four numbers.
        difficult: Whether it does not count.
        shown: Corners as they were written, for messages.
    """

    name: str
    corners: tuple[float, float, float, float] | None
    difficult: bool
    shown: str


@dataclass(frozen=True)
class Annotation:
    """Height and width of an image, if the file gives them, and its objects."""

    size: tuple[int, int] | None
    objects: tuple[Object, ...]


def read_annotation(path: Path) -> Annotation:
    """Read a file.

    Raises:
        AnnotationError: If it is no XML, or none of an image's objects.
        OSError: If it cannot be opened.
    """
    tree = _parsed(path.read_bytes())
    root = tree.tag.rpartition("}")[2]
    if root.lower() != "annotation":
        raise AnnotationError(f"its root is <{root}>, not <annotation>")
    sides = [_number(tree.findtext(f"{{*}}size/{{*}}{side}")) for side in ("height", "width")]
    height, width = (int(side) if side and math.isfinite(side) else 0 for side in sides)
    size = (height, width) if height and width else None
    return Annotation(size, tuple(_objects(tree)))


def _objects(tree: ElementTree.Element) -> Iterator[Object]:
    for item in tree.iterfind(".//{*}object"):
        name = normal_name(item.findtext("{*}name") or "")
        if not name:
            raise AnnotationError("an object has no name")
        texts = [item.findtext(f"{{*}}bndbox/{{*}}{key}") for key in _CORNERS]
        values = [value for text in texts if (value := _number(text)) is not None]
        difficult = _number(item.findtext("{*}difficult")) == 1.0
        if len(values) < len(_CORNERS):
            yield Object(name, None, difficult, str([text or "" for text in texts]))
            continue
        left, top, right, bottom = values
        yield Object(name, (left - 1.0, top - 1.0, right, bottom), difficult, str(values))


def normal_name(name: str) -> str:
    """A class name in one of the ways in which Unicode can write it, without idle space."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _parsed(content: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        first = error
    text = _decoded(content)
    text = re.sub(r"<\?xml.*?\?>", "", text, count=1, flags=re.S)
    text = _AMPERSAND.sub("&amp;", text[text.find("<") :])
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        raise AnnotationError(f"{first}; save it as XML in UTF-8") from first


def _decoded(content: bytes) -> str:
    """Text in the encoding that a file declares, or in the first that fits."""
    declared = _DECLARED.match(content)
    named = [declared[1].decode("ascii").lower()] if declared else []
    for encoding in (*(_SUPERSETS.get(name, name) for name in named), *_ENCODINGS):
        try:
            return content.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    raise AnnotationError("its encoding is not known")
