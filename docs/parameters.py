"""Write the reference of `params.yaml`, `parameters.md` beside this file, from the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seernet.config import Params
from seernet.config.fields import Section

HEAD = """# Parameters

Every key of `params.yaml`, as the schema in `src/seernet/config/` has it (`make docs` writes this
page). A misspelt key or a value out of range is refused, with the nearest valid one, before any
stage runs. Keys whose default is *required* must be given; a section may be empty where all its
keys have a default (`predictor: {}`). DVC wants what `dvc.yaml` names to be written even where the
default is meant: `device`, every section, and `batch_size` in `pretrain`, `finetune` and
`sample.evaluation`.
"""

Schema = dict[str, Any]


def page() -> str:
    """The whole page, as Markdown."""
    schema = Params.model_json_schema()
    own = {name: f for name, f in schema["properties"].items() if _section(f, schema) is None}
    parts = [HEAD, _table({**schema, "properties": own})]
    for name, field in schema["properties"].items():
        if (section := _section(field, schema)) is not None:
            parts += _described(name, section, schema)
    return "\n".join(parts)


def _section(field: Schema, schema: Schema) -> Schema | None:
    """The section that a field holds, itself or by name (`budgets`)."""
    values = field.get("additionalProperties")
    reference: str = (values if isinstance(values, dict) else field).get("$ref", "")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else None


def _described(name: str, section: Schema, schema: Schema) -> list[str]:
    """A section, and the sections in it."""
    inner = {key: _section(field, schema) for key, field in section["properties"].items()}
    fields = {key: section["properties"][key] for key, found in inner.items() if found is None}
    title = "budgets.NAME" if name == "budgets" else name
    parts = [f"## `{title}`\n", f"{section['description']}\n"]
    parts.append(_table({**section, "properties": fields}))
    for key, found in inner.items():
        if found is not None:
            parts += _described(f"{name}.{key}", found, schema)
    return parts


def _table(section: Schema) -> str:
    kind = _kinds(Section)[section["title"]]
    rows = ["| key | values | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in section["properties"].items():
        own = kind.model_fields[name]
        value = "" if own.is_required() else own.get_default(call_default_factory=True)
        default = "*required*" if own.is_required() else f"`{_shown(value)}`"
        meaning = field.get("description", "").replace("|", "\\|").replace("<", "\\<")
        rows.append(f"| `{name}` | {_values(field)} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _kinds(kind: type[Section]) -> dict[str, type[Section]]:
    """All sections of the schema by name."""
    found = {kind.__name__: kind}
    for inner in kind.__subclasses__():
        found |= _kinds(inner)
    return found


def _values(field: Schema) -> str:
    """Type and range of a field in words."""
    if "anyOf" in field:
        return "; or ".join(_values(one) for one in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        return f"list: {_values(field['items'])}"
    plain = {"string": "text", "boolean": "`true`, `false`", "null": "`null`", "object": "keys"}
    words = plain.get(field["type"], field["type"])
    names = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    limits = [f"{word} {_shown(field[key])}" for key, word in names.items() if key in field]
    return " ".join([words, ", ".join(limits)]).strip()


def _shown(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), encoding="utf-8")
