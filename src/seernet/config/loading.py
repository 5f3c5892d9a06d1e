"""Reading `params.yaml`: plain values, then the schema; every wrong key is named."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from seernet.config.document import problems, read, shown
from seernet.config.schema import Params
from seernet.errors import ConfigError

MAX_REPORTED = 10


def load(path: str | Path = "params.yaml") -> Params:
    """Read and validate a parameters file.

    Args:
        path: The file; YAML 1.2.

    Returns:
        The validated parameters.

    Raises:
        ConfigError: If the file is missing, is not YAML, or a key or value is wrong; the message
            names the wrong keys, with the nearest valid one where a key is unknown.
    """
    return validate(read(Path(path)), str(path))


def validate(document: Mapping[str, Any], source: str = "params.yaml") -> Params:
    """Validate parameters that are already parsed.

    Args:
        document: Sections by name, of plain values.
        source: Where they come from, for the message.

    Returns:
        The validated parameters.

    Raises:
        ConfigError: See `load`.
    """
    found = list(problems(dict(document)))
    if not found:
        try:
            return Params.model_validate(dict(document))
        except ValidationError as error:
            found = [_explain(dict(item)) for item in error.errors(include_url=False)]
    listed = found[:MAX_REPORTED]
    if len(found) > MAX_REPORTED:
        listed.append(f"and {len(found) - MAX_REPORTED} more")
    message = " ".join(f"{source}: {'; '.join(listed)}".split())
    raise ConfigError(message if message.endswith("?") else f"{message}.")


def _explain(item: Mapping[str, Any]) -> str:
    """One clause for one of pydantic's errors: the key, the rule, the value received."""
    location = tuple(str(part) for part in item["loc"])
    key = ".".join(location)
    match item["type"]:
        case "extra_forbidden":
            return f"unknown key `{key}`; did you mean `{_nearest(location)}`?"
        case "missing":
            return f"missing key `{key}`{_meaning(item['loc'])}"
        case "too_short" if isinstance(item["input"], dict):
            return f"`{key}`: is empty, and needs at least one entry{_meaning(item['loc'])}"
        case "model_type" | "dict_type":
            return f"`{key}`: must be a section of `key: value` lines, got {shown(item['input'])}"
    rule = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if not location:
        return rule
    received = "" if isinstance(item["input"], dict) else f", got {shown(item['input'])}"
    return f"`{key}`: {rule}{received}{_meaning(item['loc'])}"


def _nearest(location: tuple[str, ...]) -> str:
    """The valid key most like an unknown one: a sibling, else its namesake in another section."""
    *parents, name = location
    siblings: list[str] = list(_kind(parents).model_fields)
    near = difflib.get_close_matches(name.lower(), siblings, 3, 0.6)
    if near:
        likeness = [difflib.SequenceMatcher(None, key, name.lower()).ratio() for key in near]
        # Several only if each is a letter or so away, or as near as the nearest.
        close = [k for k, x in zip(near, likeness, strict=True) if x >= min(0.9, likeness[0])]
        return "` or `".join(".".join((*parents, key)) for key in close)
    namesakes = [key for key in _keys(Params) if key.rpartition(".")[2] == name]
    if namesakes:
        return "` or `".join(namesakes)
    far = difflib.get_close_matches(name.lower(), siblings, n=1, cutoff=0.0)
    return ".".join((*parents, *far))


def _kind(location: list[str]) -> Any:
    """The section class, or the type of the value, that the schema has at a location."""
    kind: Any = Params
    for part in location:
        is_dict = get_origin(kind) is dict
        kind = get_args(kind)[1] if is_dict else kind.model_fields[part].annotation
    return kind


def _keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All keys of a section and of its subsections; a budget's under `budgets.NAME`."""
    for name, field in kind.model_fields.items():
        yield prefix + name
        child: Any = field.annotation
        key = f"{prefix}{name}."
        if get_origin(child) is dict:
            child, key = get_args(child)[1], f"{key}NAME."
        if isinstance(child, type) and issubclass(child, BaseModel):
            yield from _keys(child, key)


def _meaning(location: tuple[str | int, ...]) -> str:
    """The schema's description of the key, in parentheses; of the list for a list's entry."""
    *parents, name = takewhile(lambda part: isinstance(part, str), location)
    kind = _kind([str(part) for part in parents])
    fields = kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}
    description = fields[name].description if name in fields else None
    return f" ({description})" if description else ""
