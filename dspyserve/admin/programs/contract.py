"""JSON Schemas as people read them: fields with a type, a description and constraints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

Schema = Mapping[str, Any]

MAX_DEPTH: Final = 4
"""How deep the members of objects are listed."""
MAX_ROWS: Final = 300
"""A model that holds itself in many places would be listed without end."""

_CONSTRAINTS: Final = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": _("multiple of {}"),
    "minLength": _("length ≥ {}"),
    "maxLength": _("length ≤ {}"),
    "pattern": _("matches {}"),
    "format": "{}",
    "minItems": _("items ≥ {}"),
    "maxItems": _("items ≤ {}"),
    "minProperties": _("members ≥ {}"),
    "maxProperties": _("members ≤ {}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRow:
    """One field of a schema. `depth` is above 0 for members of objects; `schema` has its references resolved."""

    name: str
    type: str
    description: str
    constraints: tuple[str, ...]
    is_required: bool
    depth: int
    schema: Schema


def rows(schema: Schema) -> list[FieldRow]:
    """The fields of an object, each followed by the members of the objects in it; at most `MAX_ROWS`."""
    return list(islice(_rows(schema, schema.get("$defs", {}), 0, MAX_DEPTH), MAX_ROWS))


def fields(schema: Schema) -> list[FieldRow]:
    """The fields of an object alone."""
    return list(_rows(schema, schema.get("$defs", {}), 0, 1))


def resolved(schema: Any, definitions: Schema) -> Schema:
    """`schema`, or what it refers to, with what is said beside the reference."""
    seen: set[str] = set()
    while isinstance(schema, Mapping) and "$ref" in schema and schema["$ref"] not in seen:
        seen.add(schema["$ref"])
        target = definitions.get(str(schema["$ref"]).rsplit("/", 1)[-1], {})
        title = {"title": target["title"]} if "title" in target else {}
        # A field's own title is its name; that of what it refers to is the name of its type.
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}, **title}
    return schema if isinstance(schema, Mapping) else {}


def choices(schema: Schema, definitions: Schema) -> list[Any]:
    """The alternatives of `schema`, resolved; itself where it has none."""
    found = schema.get("anyOf") or schema.get("oneOf")
    return [resolved(option, definitions) for option in found] if found else [schema]


def _rows(schema: Schema, definitions: Schema, depth: int, max_depth: int) -> Iterator[FieldRow]:
    required = schema.get("required", ())
    for name, found in schema.get("properties", {}).items():
        field = resolved(found, definitions)
        # Without a reference the title is the field's own name, and none of its type.
        typed = field if isinstance(found, Mapping) and "$ref" in found else {**field, "title": ""}
        yield FieldRow(
            name=name,
            type=_type(typed, definitions),
            description=str(field.get("description", "")),
            constraints=tuple(_constraints(field, definitions)),
            is_required=name in required,
            depth=depth,
            schema=field,
        )
        if depth + 1 < max_depth:
            for option in choices(field, definitions):
                yield from _rows(_element(option, definitions), definitions, depth + 1, max_depth)


def _element(schema: Schema, definitions: Schema) -> Schema:
    """What a list holds, since its members are worth listing too."""
    return resolved(schema.get("items", {}), definitions) if schema.get("type") == "array" else schema


def _type(schema: Schema, definitions: Schema, depth: int = 0) -> str:
    if depth > MAX_DEPTH:
        return "…"
    options = choices(schema, definitions)
    if len(options) > 1:
        named = [_type(option, definitions, depth + 1) for option in options]
        return f" {gettext('or')} ".join(dict.fromkeys(named))
    (schema,) = options
    if "enum" in schema or "const" in schema:
        return gettext("one of %s") % ", ".join(map(_literal, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return _array(schema, definitions, depth)
    if schema.get("type") == "object":
        return str(schema.get("title") or "object")
    return str(schema.get("type", "any"))


def _array(schema: Schema, definitions: Schema, depth: int) -> str:
    if items := schema.get("prefixItems"):
        return f"[{', '.join(_type(resolved(item, definitions), definitions, depth + 1) for item in items)}]"
    is_set, item = schema.get("uniqueItems"), schema.get("items")
    if not item:
        return gettext("set") if is_set else gettext("list")
    kind = gettext("set of %s") if is_set else gettext("list of %s")
    return kind % _type(resolved(item, definitions), definitions, depth + 1)


def _constraints(schema: Schema, definitions: Schema) -> Iterator[str]:
    for option in choices(schema, definitions):
        for name, wording in _CONSTRAINTS.items():
            if name in option:
                yield str(wording).format(option[name])
    if schema.get("default") is not None:
        yield gettext("default %s") % _literal(schema["default"])


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
