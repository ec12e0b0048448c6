"""An example of what a JSON Schema describes, for people who read the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_FORMATS: Final = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "uuid": "01890a5d-ac96-774b-bcce-b302099a8057",
    "uri": "https://example.com/image.png",
    "base64url": "aGVsbG8=",
    "binary": "hello",
    "email": "ann@example.com",
}
_DEPTH: Final = 8


def example(schema: Any, defs: Mapping[str, Any], depth: int = 0) -> Any:
    """A value that fits `schema`, whose references are to `defs`; what is not required stays out."""
    if not isinstance(schema, Mapping) or depth > _DEPTH:
        return None
    if "$ref" in schema:
        return example(defs.get(schema["$ref"].rsplit("/", 1)[-1]), defs, depth + 1)
    for name in ("examples", "enum"):
        if schema.get(name):
            return schema[name][0]
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return example(schema[name][0], defs, depth + 1)
    return _typed(schema, defs, depth)


def _typed(schema: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> Any:
    match schema.get("type"):
        case "object":
            wanted = schema.get("required", ())
            properties = schema.get("properties", {})
            return {name: example(properties.get(name), defs, depth + 1) for name in wanted}
        case "array":
            if "prefixItems" in schema:
                return [example(item, defs, depth + 1) for item in schema["prefixItems"]]
            return [example(schema["items"], defs, depth + 1)] if schema.get("items") else []
        case "string":
            return _text(schema)
        case "integer":
            return max(1, int(schema.get("minimum", 1)))
        case "number":
            return 0.5
        case "boolean":
            return True
        case _:
            return None


def _text(schema: Mapping[str, Any]) -> str:
    if schema.get("pattern") == "^data:":
        return "data:text/plain;base64,aGVsbG8="
    return _FORMATS.get(schema.get("format", ""), str(schema.get("description") or schema.get("title") or "text"))
