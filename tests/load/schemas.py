"""Sample values of a type, given as a JSON schema or as the Python annotation that DSPy prints in a prompt."""

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

Schema = Mapping[str, Any]

STRING: Schema = {"type": "string"}
UNKNOWN: Schema = {"type": "unknown"}
"""A value of which the prompt shows no more than that it exists."""

_UNKNOWN_VALUE = "1"  # pydantic reads it as a str, an int, a float, a bool and a date alike
_DEEPEST = 8  # where a schema that contains itself ends
_INTEGER = 42
_NUMBER = 0.5
_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00",
    "duration": "PT1S",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.org/",
    "email": "user@example.org",
}
_SIMPLE: dict[str, Schema] = {
    "str": STRING,
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "NoneType": {"type": "null"},
    "None": {"type": "null"},
    "Any": {},
    "list": {"type": "array"},
    "dict": {"type": "object", "additionalProperties": True},
}


@lru_cache(maxsize=1024)
def schema_of(annotation: str) -> Schema:
    """The JSON schema of an annotation such as ``dict[str, list[int]]``; UNKNOWN parts for the types it only names."""
    try:
        return _of_node(ast.parse(annotation, mode="eval").body)
    except SyntaxError:
        return UNKNOWN


def is_known(schema: Any) -> bool:
    """Whether no part of a schema is UNKNOWN."""
    if isinstance(schema, Mapping):
        return schema is not UNKNOWN and all(map(is_known, schema.values()))
    return not isinstance(schema, list) or all(map(is_known, schema))


def _of_node(node: ast.expr) -> Schema:
    if isinstance(node, ast.Name):
        return _SIMPLE.get(node.id, UNKNOWN)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return _of_generic(node.value.id, arguments)
    return UNKNOWN


def _of_generic(name: str, arguments: list[ast.expr]) -> Schema:
    match name:
        case "Literal":
            return _of_literal(arguments)
        case "Union" | "Optional":
            return {"anyOf": [_of_node(argument) for argument in arguments]}
        case "list" | "set" | "frozenset":
            return {"type": "array", "items": _of_node(arguments[0])}
        case "tuple":
            return {"type": "array", "prefixItems": [_of_node(argument) for argument in arguments]}
        case "dict":
            return {"type": "object", "additionalProperties": _of_node(arguments[-1])}
        case _:
            return UNKNOWN


def _of_literal(arguments: list[ast.expr]) -> Schema:
    try:
        return {"enum": [ast.literal_eval(argument) for argument in arguments]}
    except ValueError:
        return UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Makes one value of a schema: always the same, every property filled, None only where nothing else is allowed."""

    text: Callable[[str], str]
    """The text of the string at a path such as ``person.name``."""
    definitions: Mapping[str, Schema] = field(default_factory=dict)
    """What ``$ref`` refers to."""

    def value(self, schema: Schema, path: str, depth: int = 0) -> Any:
        """A value that the schema allows."""
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        if choices := schema.get("anyOf") or schema.get("oneOf"):
            return self.value(_choice(choices, depth), path, depth + 1)
        return self._of_type(_type(schema), schema, path, depth)

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self.definitions[schema["$ref"].rsplit("/", 1)[-1]]
        return schema

    def _of_type(self, kind: str, schema: Schema, path: str, depth: int) -> Any:
        match kind:
            case "object":
                return self._object(schema, path, depth)
            case "array":
                return self._array(schema, path, depth)
            case "integer":
                return _within(_INTEGER, schema, step=1)
            case "number":
                return _within(_NUMBER, schema, step=0.5)
            case "boolean":
                return True
            case "null":
                return None
            case "unknown":
                return _UNKNOWN_VALUE
            case _:
                return self._string(schema, path)

    def _object(self, schema: Schema, path: str, depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        values = {name: self.value(each, f"{path}.{name}", depth + 1) for name, each in properties.items()}
        extra = schema.get("additionalProperties")
        if properties or not (extra or isinstance(extra, Mapping)):
            return values
        key = self._key(schema)
        return {key: self.value(extra if isinstance(extra, Mapping) else {}, f"{path}.{key}", depth + 1)}

    def _key(self, schema: Schema) -> str:
        names = schema.get("propertyNames")
        return str(self.value(names, "key")) if names else "1"  # a key that str and int both take

    def _array(self, schema: Schema, path: str, depth: int) -> list[Any]:
        if first := schema.get("prefixItems"):
            return [self.value(each, f"{path}.{index}", depth + 1) for index, each in enumerate(first)]
        if depth > _DEEPEST:
            return []
        count = max(1, schema.get("minItems", 0))
        return [self.value(schema.get("items") or {}, f"{path}.{index}", depth + 1) for index in range(count)]

    def _string(self, schema: Schema, path: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        return self.text(path).ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]


def _choice(choices: list[Schema], depth: int) -> Schema:
    """The first alternative, and null as late as possible."""
    nullable = sorted(choices, key=lambda choice: choice.get("type") == "null")
    return nullable[-1 if depth > _DEEPEST else 0]


def _type(schema: Schema) -> str:
    kind = schema.get("type", "string")
    return kind if isinstance(kind, str) else next((each for each in kind if each != "null"), "null")


def _within(value: float, schema: Schema, step: float) -> float:
    """The number moved between the bounds of the schema."""
    low = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf) + step)
    high = schema.get("maximum", schema.get("exclusiveMaximum", math.inf) - step)
    return min(max(value, low), high)
