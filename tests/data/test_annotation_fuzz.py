"""Whatever is done to annotations of boxes, they are accepted whole, or refused by file and remedy.

The same mutants of one file in VOC and of one in COCO layout in every run. Where a mutant is
accepted, all its boxes lie inside their images and have a class.
"""

from __future__ import annotations

import copy
import json
import random
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seernet.config import DataConfig
from seernet.data.listing import Listing
from seernet.data.sources import list_source
from seernet.errors import DataError

MUTANTS = 700  # of each layout
IMAGES = 4
XML = """<?xml version="1.0"?>
<annotation><filename>0.png</filename><size><width>40</width><height>30</height></size>{}</annotation>
"""
OBJECT = "<object><name>{}</name><difficult>0</difficult><bndbox>{}</bndbox></object>"
BOX = "<xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>25</ymax>"

TEXTS = ["", " ", "nan", "inf", "-1", "0", "1e400", "1e300", "x", "3.5", "1_0", "9" * 5000, "<"]
TEXTS += ["True", "None", "0x10", "40", "31", "cat", "a" * 3000, "\u00e9", "\u0663", "../.."]
NOISE = ["<", ">", "&", "&x;", "<!--", "]]>", "<![CDATA[", "<?", "\x00", "\ufeff", '"', "{", "["]
NOISE += ["</object>", "<object>", "\\u0000", "\\ud800", "\\", ":", ",", "null", "1e999", "NaN"]
VALUES: list[Any] = [None, True, False, 0, -1, 1, 7, 2**70, 10**400, 0.5, -0.0, 1e300]
VALUES += [float("nan"), float("inf"), "", "7", "x", "0.png", "../0.png", "/", ".", "a\x00b"]
VALUES += ["\ud800", "a" * 5000, "1234", [], {}, [1], [[1]], {"a": 1}, [1, 2, 3], [0, 0, "5", 5]]
VALUES += [[0, 0, 1e300, 1e300]]
BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">{}]><annotation>&{};</annotation>'
ENTITIES = "".join(
    f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def images(folder: Path) -> None:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = noise.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def outcome(name: str, root: Path, drop: bool) -> Listing | str:
    """What comes of a folder: a listing, or the text that refuses it."""
    options = {"bad_boxes": "drop"} if drop else {}
    try:
        listing = list_source(DataConfig(name=name, path=str(root), **options))
    except DataError as error:
        return str(error)
    return "\n".join(listing.complaints) or listing


def check_accepted(listing: Listing) -> None:
    """All boxes lie inside of their images, which are there, and have a class."""
    assert listing.boxes is not None and listing.sizes is not None
    assert all(name.encode("utf-8") for name in (*listing.classes, *listing.names))
    corners = listing.boxes.corners
    sizes = listing.sizes[listing.boxes.images]
    assert len(listing) == len(listing.sizes) == len(listing.names)
    assert (corners[:, :2] >= 0).all() and (corners[:, :2] < corners[:, 2:]).all()
    assert (corners[:, 2:] <= sizes[:, ::-1]).all()
    assert set(listing.boxes.labels.tolist()) <= set(range(len(listing.classes)))


def noisy(draw: random.Random, content: bytes) -> bytes:
    """Bytes with something inserted, replaced, or cut off."""
    if draw.random() < 0.2:
        return content[: draw.randrange(len(content))]
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(content) + 1)
        end = min(len(content), start + draw.choice([0, 0, 1, 8, 60]))
        text = draw.choice(NOISE).encode() if draw.random() < 0.7 else draw.randbytes(2)
        content = content[:start] + text + content[end:]
    return content


# --- VOC ---


def other_element(draw: random.Random, content: bytes) -> bytes:
    """One element has another text or name, or is missing, or stands there twice or elsewhere."""
    root = ElementTree.fromstring(content)
    parents = [(parent, child) for parent in root.iter() for child in parent]
    parent, child = draw.choice(parents)
    match draw.randrange(5):
        case 0 | 1:
            child.text = draw.choice(TEXTS)
        case 2:
            parent.remove(child)
        case 3:
            draw.choice(parents)[0].append(copy.deepcopy(child))
        case 4:
            child.tag = draw.choice(["xmin", "object", "size", "Name", "a"])
    return ElementTree.tostring(root, encoding=draw.choice(["utf-8", "utf-16", "latin-1"]))


def whole_file(draw: random.Random, content: bytes) -> bytes:
    """Another file altogether."""
    texts = [b"", b"{}", b"<a/>", b"<annotation/>", BOMB.format(ENTITIES, "i").encode()]
    texts += [b"<a>" * 5000 + b"</a>" * 5000, content.replace(b"?>", b' encoding="utf-7"?>')]
    texts += [content.replace(b"?>", b' encoding="none"?>'), content.decode().encode("utf-16")]
    external = (
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>'
    )
    return draw.choice([*texts, external, draw.randbytes(200), b"\xef\xbb\xbf" + content])


def test_every_mutant_of_a_voc_file_is_accepted_or_refused_by_name(tmp_path: Path) -> None:
    images(tmp_path / "JPEGImages")
    (tmp_path / "Annotations").mkdir()
    text = XML.format(OBJECT.format("cat", BOX) + OBJECT.format("dog", BOX)).encode()
    for number in range(IMAGES):
        (tmp_path / "Annotations" / f"{number}.xml").write_bytes(text)
    draw = random.Random(0)
    ways = [other_element, other_element, noisy, whole_file]
    check_all(draw, "voc", tmp_path, tmp_path / "Annotations" / "0.xml", ways)


def check_all(
    draw: random.Random,
    name: str,
    root: Path,
    file: Path,
    ways: list[Callable[[random.Random, bytes], bytes]],
) -> None:
    """Put every mutant into a file's place, and see what comes of it."""
    content = file.read_bytes()
    refused = 0
    for _ in range(MUTANTS):
        mutant = draw.choice(ways)(draw, content)
        file.write_bytes(mutant)
        found = outcome(name, root, drop=draw.random() < 0.3)
        if isinstance(found, str):
            refused += 1
            # The file, or an image that it speaks of; and what to do.
            assert file.name in found or re.search(r"\d\.png", found), (mutant, found)
            assert ";" in found, (mutant, found)
            assert len(found) < 3000, (mutant, len(found))
        else:
            check_accepted(found)
    assert MUTANTS / 4 < refused < MUTANTS


# --- COCO ---


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a document, with each of its keys or positions."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        yield node, key
        if isinstance(value, dict | list):
            yield from places(value)


def other_value(draw: random.Random, content: bytes) -> bytes:
    """One or two values are others, or missing, or stand there twice, or have another key."""
    document = json.loads(content)
    for _ in range(draw.randint(1, 2)):
        node, key = draw.choice(list(places(document)))
        match draw.randrange(4):
            case 0 | 1:
                node[key] = draw.choice(VALUES)
            case 2:
                del node[key]
            case 3 if isinstance(node, list):
                node.append(copy.deepcopy(node[key]))
            case _:
                node[draw.choice(["id", "bbox", "x"]) if isinstance(node, dict) else 0] = node[key]
        if not document or not list(places(document)):
            break
    return json.dumps(document).encode()


def whole_document(draw: random.Random, content: bytes) -> bytes:
    """Another file altogether."""
    texts = [b"", b"[]", b"3", b"null", b'"x"', b"{}", b"[" * 100_000, b'{"a":' * 100_000]
    texts += [content.decode().encode("utf-16"), b"\xef\xbb\xbf" + content, draw.randbytes(200)]
    texts += [b'{"images": ' + b"9" * 5000 + b"}", content + content, content.replace(b"7", b"1e5")]
    return draw.choice(texts)


def test_every_mutant_of_a_coco_file_is_accepted_or_refused_by_name(tmp_path: Path) -> None:
    images(tmp_path / "train")
    (tmp_path / "annotations").mkdir()
    document = {
        "images": [
            {"id": number + 7, "file_name": f"{number}.png", "width": 40, "height": 30}
            for number in range(IMAGES)
        ],
        "annotations": [
            {"id": n, "image_id": n % IMAGES + 7, "category_id": n // IMAGES, "bbox": [3, 4, 9, 9]}
            | {"iscrowd": 0}
            for n in range(2 * IMAGES)
        ],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    file = tmp_path / "annotations" / "instances_train.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    ways = [other_value, other_value, other_value, noisy, whole_document]
    check_all(random.Random(0), "coco", tmp_path, file, ways)


@pytest.mark.parametrize("part", ["images", "categories"])
def test_two_coco_entries_of_one_id_are_refused(tmp_path: Path, part: str) -> None:
    images(tmp_path / "train")
    (tmp_path / "annotations").mkdir()
    document: dict[str, list[dict[str, Any]]] = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(IMAGES)],
        "annotations": [{"image_id": 0, "category_id": 0, "bbox": [3, 4, 9, 9]}],
        "categories": [{"id": n, "name": "cd"[n]} for n in range(2)],
    }
    document[part][1]["id"] = 0
    file = tmp_path / "annotations" / "instances_train.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match=rf"instances_train\.json .*two entries of {part} .*id 0"):
        list_source(DataConfig(name="coco", path=str(tmp_path)))
