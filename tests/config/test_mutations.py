"""Whatever is done to `params.yaml`, it is accepted, or refused by a message that names the key."""

import copy
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from seernet.config import load, validate
from seernet.errors import ConfigError

TEXT = (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8")
DOCUMENT: dict[str, Any] = YAML(typ="safe", pure=True).load(TEXT)
FREE = ("model.arguments",)  # arbitrary keyword arguments live below


def keys(node: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """All locations of keys, outermost first."""
    found = []
    for name, value in node.items():
        found.append((*prefix, name))
        if isinstance(value, dict):
            found += keys(value, (*prefix, name))
    return found


LOCATIONS = [location for location in keys(DOCUMENT) if not ".".join(location).startswith(FREE)]
PATIENT = settings(deadline=None)  # a busy machine is no failure
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.binary(max_size=4)
    | st.sampled_from(["64", "1e-3", "auto", 2**31, 2**64, 10**400, -1, 0, 1, 2, 1.0])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=6,
)


def parent_of(document: dict[str, Any], location: tuple[str, ...]) -> dict[str, Any]:
    """The section that holds the last key of a location."""
    for part in location[:-1]:
        document = document[part]
    return document


def refusal(document: dict[str, Any]) -> str | None:
    """The message that refuses a document; None if it is accepted."""
    try:
        validate(document)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1
        return str(error)
    return None


def names(message: str, location: tuple[str, ...]) -> bool:
    """Whether a message names a key; a budget that loses its last limit is named itself."""
    if location[0] == "budgets" and len(location) == 3 and "at least one limit" in message:
        location = location[:-1]
    return ".".join(location) in message


@PATIENT
@given(st.sampled_from(LOCATIONS), VALUES)
def test_any_value_is_accepted_or_refused_by_its_key(location, value):
    document = copy.deepcopy(DOCUMENT)
    parent_of(document, location)[location[-1]] = value
    message = refusal(document)
    assert message is None or names(message, location)


@PATIENT
@given(st.sampled_from(LOCATIONS), st.data())
def test_misspelt_key_is_named_with_a_suggestion(location, data):
    name = location[-1]
    position = data.draw(st.integers(0, len(name) - 1))
    letter = data.draw(st.sampled_from(["", "z", "Q", "-"]))
    wrong = name[:position] + letter + name[position + 1 :]
    document = copy.deepcopy(DOCUMENT)
    parent = parent_of(document, location)
    assume(wrong not in parent)
    parent[wrong] = parent.pop(name)
    message = refusal(document)
    if location[:-1] == ("budgets",):
        assert message is None or "`budgets`" in message
        return
    assert message is not None
    assert f"unknown key `{'.'.join((*location[:-1], wrong))}`" in message
    assert f"`{'.'.join(location)}`" in message


@PATIENT
@given(st.sampled_from(LOCATIONS))
def test_left_out_key_has_a_default_or_is_named(location):
    document = copy.deepcopy(DOCUMENT)
    del parent_of(document, location)[location[-1]]
    message = refusal(document)
    assert message is None or names(message, location)


@PATIENT
@given(st.data())
def test_damaged_text_never_escapes_as_another_error(tmp_path_factory, data):
    start = data.draw(st.integers(0, len(TEXT)))
    end = data.draw(st.integers(start, min(len(TEXT), start + 40)))
    noise = data.draw(st.text(max_size=12) | st.sampled_from(["\t", "&a ", "*a", "!!", "? ", "- "]))
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_text(
        TEXT[:start] + noise + TEXT[end:], encoding="utf-8", errors="surrogatepass", newline=""
    )
    try:
        load(path)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1
