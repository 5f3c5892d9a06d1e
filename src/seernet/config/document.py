"""From the text of a parameters file to plain values: YAML 1.2, as DVC reads it.

YAML can say more than parameters should: dates, sets, keys that are numbers, aliases that expand
without end. All of that is refused here, so that the schema meets only sections, lists and scalars.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from seernet.errors import ConfigError

MAX_CHARACTERS = 1_000_000
MAX_VALUES = 10_000
MAX_DEPTH = 16
MAX_RECURSION = 100  # beyond it Python's own limit is near
MAX_INTEGER = 2**53  # up to here every integer is a float, too
MAX_SHOWN = 60

# What ruamel.yaml lets through, beside its own errors, on malformed numbers, dates and tags.
_CONSTRUCTION_ERRORS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
)


class _Constructor(SafeConstructor):  # type: ignore[misc]
    """Gives the line, too, of a number, date or tag that is malformed."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _CONSTRUCTION_ERRORS as error:
            text = f", {shown(node.value)}" if isinstance(node.value, str) else ""
            problem = f"{node.tag}{text} cannot be read ({type(error).__name__}: {error})"
            raise ConstructorError(None, None, problem, node.start_mark) from error


def read(path: Path) -> dict[str, Any]:
    """Read a parameters file into plain values.

    Args:
        path: The file; YAML 1.2 in UTF-8.

    Returns:
        The document: text keys; values are sections, lists, text, finite numbers, booleans, null.

    Raises:
        ConfigError: If the file cannot be read, or holds anything else.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: must be text in UTF-8: {error}; save it as UTF-8."
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}; run from the repository root.") from error
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"{path} may hold {MAX_CHARACTERS} characters, got {len(text)}; is it the right file?"
        )
    document = _parse(text, path)
    if not isinstance(document, dict):
        kind = "nothing" if document is None else f"a {type(document).__name__}"
        raise ConfigError(f"{path} must hold sections (data:, model:, ...), got {kind}.")
    return document


def _parse(text: str, path: Path) -> Any:
    loader = YAML(typ="safe", pure=True)
    loader.Constructor = _Constructor
    loader.max_depth = MAX_RECURSION
    try:
        return loader.load(text)
    except DuplicateKeyError as error:
        # ruamel: found duplicate key "seed" with value "1" (original value: "0")
        problem = " ".join(str(error.problem).split()).split(" with value ")[0]
        raise ConfigError(f"{path}{_line(error)}: {problem}; remove one of the two.") from error
    except MarkedYAMLError as error:
        problem = " ".join(str(error.problem or error.context).split(", if necessary")[0].split())
        raise ConfigError(f"{path}{_line(error)} is not valid YAML: {problem:.200}.") from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{path}, line {line} is not valid YAML: it holds the invisible character "
            f"U+{error.character:04X}; remove it."
        ) from error
    except (YAMLError, *_CONSTRUCTION_ERRORS) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(
            f"{path} is not valid YAML: {type(error).__name__} {problem:.200}"
        ) from error


def _line(error: MarkedYAMLError) -> str:
    return "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"


def problems(document: dict[str, Any]) -> Iterator[str]:
    """Say which values of a document are none that parameters can have.

    Yields:
        For each such value one clause that names its key. A document that is nested too deeply, or
        too large once aliases are expanded, ends with a clause about that.
    """
    stack: list[tuple[str, int, Any]] = [("", 0, document)]
    seen = 0
    while stack:
        key, depth, value = stack.pop()
        seen += 1
        if seen > MAX_VALUES or depth > MAX_DEPTH:
            yield (
                f"parameters may hold {MAX_VALUES} values, nested {MAX_DEPTH} deep, and "
                f"`{key:.200}` goes beyond; remove aliases that repeat large parts"
            )
            return
        if isinstance(value, dict):
            for name, item in value.items():
                if isinstance(name, str):
                    stack.append((f"{key}.{name}" if key else name, depth + 1, item))
                else:
                    where = f" of `{key}`" if key else ""
                    yield f"key {_typed(name)}{where} must be text; put it in quotes"
        elif isinstance(value, list):
            stack += [(f"{key}.{index}", depth + 1, item) for index, item in enumerate(value)]
        elif problem := _scalar_problem(value):
            yield f"`{key}`: {problem}"


def _scalar_problem(value: object) -> str | None:
    if value is None or isinstance(value, str | bool):
        return None
    if isinstance(value, int):
        if abs(value) <= MAX_INTEGER:
            return None
        return f"integers end at 2**53, got one of {value.bit_length()} bits; write a smaller one"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"numbers must be finite, got {value}"
    return f"must be text, a number, true, false or null, got {_typed(value)}; text needs quotes"


def _typed(value: object) -> str:
    """A value after its type; containers and huge integers, which may not print, by type alone."""
    name = type(value).__name__
    if value is None:
        return shown(value)
    if isinstance(value, Container) or (isinstance(value, int) and abs(value) > MAX_INTEGER):
        return name
    return f"{name} {shown(value)}"


def shown(value: object) -> str:
    """A value as YAML would spell it, cut to a readable length."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
