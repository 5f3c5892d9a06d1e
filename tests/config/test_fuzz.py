"""Whatever is done to the text of a parameters file, what is refused is refused by name.

Thousands of mutants of `params.yaml` and of each preset, the same ones in every run: each is
accepted, or refused by a `ConfigError` that names the key, or, where the text is no YAML, the line.
"""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from seernet.config import load
from seernet.errors import ConfigError

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))]
MUTANTS = 160  # of each file
FREE = ("model", "arguments")  # the user's own keys live below
WHOLE = ("must hold sections", "may hold")  # what is said of a document as a whole

VALUES = [
    *("", "~", "null", "true", "no", "text", "''", "'0'", '"0.1"', "0", "1", "-1", "2", "1.0"),
    *("0.5", "1e-3", ".nan", "-.inf", "1e999", "-1e300", "9" * 30, "9" * 5000, "0x1f", "0o17"),
    *("010", "1_000", "1:30", "2020-01-01", "2020-13-45", "0001-01-01T00:00:00+23:59", "[]", "{}"),
    *("[1, [2, [3]]]", "[0.1, x]", "{a: 1}", "{a: {b: [c]}}", "{1: 2}", "{~: ~}", "{[1]: 2}"),
    *("[" * 400, "[" * 30 + "]" * 30, "{a: " * 20 + "1" + "}" * 20, "[1", "{a", "'open", '"\\q"'),
    *("&a [*a]", "&a {b: *a}", "*missing", "&", "*", "!", "!!set {a}", "!!binary aGk=", "!!int x"),
    *("!!binary ===", "!!float x", "!!bool maybe", "!!timestamp x", "!!omap [1]", "!!python/none"),
    *("!!map [1]", "!!seq {a: 1}", "!!str [1]", "!!pairs 3", "!!null x", "!local 1", "!<x> 1"),
    *("|", ">-", "|9", "? a", "- a", "@a", "`a`", "%a", "a: b", "a # b", "\t1", "\u00e9", "\u2028"),
    *("\U0001f40d", "<<", "=", "---", "...", "<<: {a: 1}"),
]
NOISE = ["\t", " ", "\n", ":", "- ", "#", "&a ", "*a", "!!", "? ", "[", "}", "'", '"', "\\", "%"]
NOISE += ["\r", "\x00", "\x85", "\u2029", "\ufeff", "\ud800", "---\n", "...\n", "<<: *a\n", "| \n"]

Location = tuple[str, ...]
Mutant = tuple[bytes, list[Location]]  # the file, and locations one of which a refusal has to name


def keys(lines: list[str]) -> dict[int, Location]:
    """The location of the key that each line of a block-style file opens."""
    found: dict[int, Location] = {}
    path: list[str] = []
    for number, line in enumerate(lines):
        if match := re.match(r"((?:  )*)([A-Za-z0-9_]+):", line):
            path[len(match[1]) // 2 :] = [match[2]]
            found[number] = tuple(path)
    return found


def extent(lines: list[str], number: int) -> int:
    """The line after a key and all that is below it."""
    depth = len(lines[number]) - len(lines[number].lstrip())
    end = number + 1
    while end < len(lines) and lines[end].startswith(" " * (depth + 1)):
        end += 1
    return end


def joined(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def another_value(draw: random.Random, lines: list[str], number: int, at: Location) -> Mutant:
    head = lines[number].partition(":")[0]
    lines[number : extent(lines, number)] = [f"{head}: {draw.choice(VALUES)}"]
    return joined(lines), [at]


def another_name(draw: random.Random, lines: list[str], number: int, at: Location) -> Mutant:
    head, _, rest = lines[number].partition(":")
    name = at[-1]
    place = draw.randrange(len(name))
    short, long = name[:place] + name[place + 1 :], name[:place] + "z" + name[place:]
    odd = [f"{name} ", f"'{name}'", "~", "1", "x" * 300, "\u00e9", "<<", "''"]
    other = draw.choice([short, long, name.upper(), *odd])
    lines[number] = f"{head.removesuffix(name)}{other}:{rest}"
    return joined(lines), [at, (*at[:-1], other.strip())]


def left_out(draw: random.Random, lines: list[str], number: int, at: Location) -> Mutant:
    del lines[number : extent(lines, number)]
    return joined(lines), [at]


def twice(draw: random.Random, lines: list[str], number: int, at: Location) -> Mutant:
    end = extent(lines, number)
    lines[end:end] = lines[number:end]
    return joined(lines), [at]


def elsewhere(draw: random.Random, lines: list[str], number: int, at: Location) -> Mutant:
    end = extent(lines, number)
    block = lines[number:end]
    del lines[number:end]
    goal = draw.randrange(len(lines) + 1)
    lines[goal:goal] = block
    return joined(lines), []


def indented(draw: random.Random, lines: list[str], number: int, at: Location) -> Mutant:
    lines[number] = draw.choice([" ", "  ", "\t", "    ", "- "]) + lines[number]
    return joined(lines), []


def anchored(draw: random.Random, lines: list[str], number: int, at: Location) -> Mutant:
    """The value of one key is an alias of another's."""
    other = draw.choice(sorted(keys(lines)))
    for place, mark in ((other, "&x"), (number, "*x")):
        head, _, rest = lines[place].partition(":")
        if mark == "&x":
            lines[place] = f"{head}: &x{rest}"
        else:
            lines[place : extent(lines, place)] = [f"{head}: *x"]
    return joined(lines), []


def noisy(draw: random.Random, lines: list[str], number: int, at: Location) -> Mutant:
    text = "\n".join(lines)
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(text) + 1)
        end = min(len(text), start + draw.choice([0, 0, 1, 5, 40]))
        text = text[:start] + draw.choice(NOISE) * draw.choice([1, 1, 1, 60]) + text[end:]
    return text.encode("utf-8", "surrogatepass"), []


def damaged(draw: random.Random, lines: list[str], number: int, at: Location) -> Mutant:
    content = bytearray(joined(lines))
    for _ in range(draw.randint(1, 6)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content), []


def cut(draw: random.Random, lines: list[str], number: int, at: Location) -> Mutant:
    content = joined(lines)
    return content[: draw.randrange(len(content))], []


def encoded(draw: random.Random, lines: list[str], number: int, at: Location) -> Mutant:
    text = "# gr\u00fc\u00dfe\n" + "\n".join(lines)
    ways = ["utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "utf-7", "cp1252"]
    return text.encode(draw.choice(ways)), []


MUTATIONS: list[Callable[[random.Random, list[str], int, Location], Mutant]] = [
    *(another_value, another_value, another_name, another_name, left_out, twice, elsewhere),
    *(indented, anchored, noisy, noisy, damaged, cut, encoded),
]


def is_named(message: str, asked: list[Location]) -> object:
    """Whether a refusal says where: a line, a key, or that it means the whole document."""
    if re.match(r", line \d+", message) or any(words in message for words in WHOLE):
        return True
    named = re.findall(r"`[^`]*`|key null", message)
    if not asked:
        return bool(named)
    # What stands at a key may make its section wrong, or its section's rule: both are near enough.
    near = {".".join(at[: len(at) - up]) for at in asked for up in (0, 1) if len(at) > up}
    return any(key in message for key in near if key) or re.search("key null|``", message)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_mutant_is_accepted_or_refused_by_name(path, tmp_path):
    draw = random.Random(path.stem)
    original = path.read_text(encoding="utf-8").splitlines()
    places = keys(original)
    refused = 0
    for _ in range(MUTANTS):
        number = draw.choice(list(places))
        mutate = draw.choice(MUTATIONS)
        content, asked = mutate(draw, list(original), number, places[number])
        mutant = tmp_path / "mutant.yaml"
        mutant.write_bytes(content)
        try:
            load(mutant)
        except ConfigError as error:
            message = str(error)
            assert len(message.splitlines()) == 1, (mutate.__name__, message)
            assert message.startswith(str(mutant))
            said = message.removeprefix(str(mutant))
            assert is_named(said, asked), (mutate.__name__, places[number], message)
            refused += 1
    assert MUTANTS / 4 < refused < MUTANTS
