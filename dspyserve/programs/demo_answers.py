"""What the demo engine says: a value of its declared type for every field that a prompt asks for.

The values are plainly a demo's, depend on nothing but the prompt, and repeat what the inputs hold where a field's name
or type suggests it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspyserve.programs.demo_extraction import as_number, finder, iso_dates, numbers
from dspyserve.programs.demo_prompt import Schema

SEARCHED = 4_000
"""Characters of the inputs that are searched: a demo must not cost more for a long text."""

_MAX_DEPTH = 4
"""Levels of nesting below which optional values are left out, so that recursive models end."""

_QUOTED = 60
"""Characters of a text that an answer quotes."""

_DISCLAIMER = (
    "The offline demo engine wrote this from the inputs alone, without a language model. "
    "Choose a language model for this program to get real answers."
)
_REPLIES = frozenset(["answer", "reply", "response"])
_THOUGHTS = frozenset(["rationale", "reasoning", "thought"])
_PROBABILITIES = frozenset(["certainty", "confidence", "likelihood", "probability", "score"])

_FORMATS = {
    "base64": "ZGVtbw==",
    "date": "2026-01-01",
    "date-time": "2026-01-01T12:00:00Z",
    "duration": "PT1H",
    "email": "demo@example.com",
    "hostname": "demo.example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "time": "12:00:00",
    "uri": "https://example.com/demo",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
"""Where the inputs hold no better one. Addresses are those that RFC 2606, 3849 and 5737 reserve for examples."""


def answer(
    inputs: Mapping[str, str], outputs: Mapping[str, Schema], observations: Sequence[str] = ()
) -> dict[str, Any]:
    """A value for every field of `outputs`. `observations` are sentences on what an agent's tools returned."""
    source = Source(inputs=inputs, outputs=list(outputs), observations=observations)
    return {name: source.value(name, schema) for name, schema in outputs.items()}


def quoted(text: str) -> str:
    """`text` on one line in quotation marks, shortened."""
    line = " ".join(text[:SEARCHED].split())
    return f'"{line}"' if len(line) <= _QUOTED else f'"{line[:_QUOTED].rsplit(" ", 1)[0]}…"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the values are made from."""

    inputs: Mapping[str, str]
    outputs: Sequence[str] = ()
    observations: Sequence[str] = ()
    text: str = field(init=False)
    """What is searched: the observations, the last one first, and the inputs."""
    seed: int = field(init=False)
    """The same for the same inputs."""

    def __post_init__(self) -> None:
        text = "\n".join([*reversed(self.observations), *self.inputs.values()])
        object.__setattr__(self, "text", text[:SEARCHED])
        object.__setattr__(self, "seed", zlib.crc32(text.encode()))

    @property
    def question(self) -> str:
        """The first input."""
        return next(iter(self.inputs.values()), "")

    def value(self, name: str, schema: Schema) -> Any:
        """A value that `schema` allows for the field of this name."""
        if not _words(name).isdisjoint(_THOUGHTS) and _is_text(schema):
            return self.reasoning()
        return _Filler(self, schema.get("$defs", {})).fill(name, schema, 0)

    def found(self, name: str) -> list[str] | None:
        """What the inputs hold for a field of this name; None where the name suggests nothing to look for."""
        find = finder(name)
        return None if find is None else find(self.text)

    def sentences(self, name: str) -> str:
        """The text for a field that nothing in the inputs fills."""
        preposition = "for" if _words(name).isdisjoint(_REPLIES) else "to"
        opening = f"Demo {_spoken(name)} {preposition} {quoted(self.question)}{self._context()}: "
        return opening + " ".join([*self.observations, _DISCLAIMER])

    def reasoning(self) -> str:
        """What stands where a language model would think."""
        read = _listed([f"{name} ({quoted(text)})" for name, text in self.inputs.items()])
        return (
            f"Demo reasoning: the inputs are {read}. The type of each field decides the demo value of {self._asked()}."
        )

    def _context(self) -> str:
        """The other inputs, where they are short: they tell apart what a program asks of one text several times."""
        others = list(self.inputs.items())[1:]
        short = [f"{_spoken(name)} {quoted(text)}" for name, text in others if 0 < len(text) <= _QUOTED]
        return f" with {_listed(short)}" if short else ""

    def _asked(self) -> str:
        return _listed([_spoken(name) for name in self.outputs if _words(name).isdisjoint(_THOUGHTS)]) or "the answer"


class _Filler:
    """Makes one field's value, with the definitions that its schema refers to."""

    def __init__(self, source: Source, definitions: Mapping[str, Schema]) -> None:
        self.source = source
        self.definitions = definitions
        self.entered: list[str | None] = []
        self.by_type: dict[str, Callable[[str, Schema, int], Any]] = {
            "string": self.string,
            "integer": self.integer,
            "number": self.number,
            "boolean": lambda name, schema, depth: bool(self.source.seed & 1),
            "null": lambda name, schema, depth: None,
            "array": self.array,
            "object": self.object,
        }

    def fill(self, name: str, schema: Schema, depth: int) -> Any:
        """A value that `schema` allows, `depth` levels below the field."""
        self.entered.append(schema.get("$ref"))
        try:
            return self.filled(name, self.resolved(schema), depth)
        finally:
            self.entered.pop()

    def filled(self, name: str, schema: Schema, depth: int) -> Any:
        """A value that `schema`, without references, allows."""
        if "const" in schema:
            return schema["const"]
        if choices := schema.get("enum"):
            return self.choice(choices)
        if variants := schema.get("anyOf") or schema.get("oneOf"):
            return self.variant(name, variants, depth)
        if schema.get("default") is not None and not self.source.found(name):
            return schema["default"]
        return self.by_type.get(str(schema.get("type")), self.string)(name, schema, depth)

    def resolved(self, schema: Schema) -> Schema:
        """`schema` with what it refers to; keys beside the reference stay."""
        references = [schema, *schema.get("allOf", ())]
        merged: dict[str, Any] = {}
        for part in references:
            name = str(part.get("$ref", "")).rpartition("/")[2]
            target = self.definitions.get(name, {})
            merged |= {**(self.resolved(target) if target else {}), **part}
        return merged

    def choice(self, choices: Sequence[Any]) -> Any:
        """A choice that the inputs mention; else one that depends on them."""
        text = self.source.text.lower()
        mentioned = [choice for choice in choices if re.search(rf"(?<!\w){re.escape(str(choice).lower())}(?!\w)", text)]
        return (mentioned or [choices[self.source.seed % len(choices)]])[0]

    def variant(self, name: str, variants: Sequence[Schema], depth: int) -> Any:
        """The first variant; None, where allowed, if the inputs lack what the name suggests or a model recurs."""
        real = [variant for variant in variants if variant.get("type") != "null"]
        recurs = any("$ref" in variant and variant["$ref"] in self.entered for variant in real)
        if not real or (len(real) < len(variants) and (recurs or self.source.found(name) == [])):
            return None
        # Text last: DSPy looks for JSON in the text for a field that may be something else too.
        return self.fill(name, min(real, key=_is_text), depth)

    def string(self, name: str, schema: Schema, depth: int) -> str:
        """A text that the inputs hold, one of the wanted format, or the demo's own."""
        if "format" in schema:
            return self.formatted(name, schema["format"])
        if name == "generated_code":
            # dspy.ProgramOfThought runs it.
            return "print('Demo output')"
        found = self.source.found(name)
        own = self.source.sentences(name) if depth == 0 else f"Demo {_spoken(name)}"
        text = found[0] if found else own
        return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]

    def formatted(self, name: str, wanted: str) -> str:
        """A text of the format `wanted`; a date or an e-mail address from the inputs if they hold one."""
        if wanted in ("date", "date-time") and (days := iso_dates(self.source.text)):
            return days[0] if wanted == "date" else f"{days[0]}T12:00:00Z"
        found = self.source.found(wanted) if wanted == "email" else None
        return (found or [_FORMATS.get(wanted, f"demo {_spoken(name)}")])[0]

    def integer(self, name: str, schema: Schema, depth: int) -> int:
        """The first number in the inputs, or 1, within the bounds."""
        low = schema.get("minimum", schema.get("exclusiveMinimum", -float("inf")) + 1)
        high = schema.get("maximum", schema.get("exclusiveMaximum", float("inf")) - 1)
        return int(min(max(self.first_number(name, 1), low), high))

    def number(self, name: str, schema: Schema, depth: int) -> float:
        """The first number in the inputs, 0.5 for a probability, or 1.0, within the bounds."""
        low = schema.get("minimum", schema.get("exclusiveMinimum", -float("inf")))
        high = schema.get("maximum", schema.get("exclusiveMaximum", float("inf")))
        value = min(max(self.first_number(name, 1.0), low), high)
        is_open = value in (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum"))
        return self.between(low, high) if is_open else float(value)

    def first_number(self, name: str, fallback: float) -> float:
        """The first number in the inputs, unless the name wants a probability."""
        if not _words(name).isdisjoint(_PROBABILITIES):
            return 0.5
        found = numbers(self.source.text)
        return as_number(found[0]) if found else fallback

    def between(self, low: float, high: float) -> float:
        """A number inside an open interval."""
        if high == float("inf"):
            return low + 1.0
        return high - 1.0 if low == -float("inf") else (low + high) / 2

    def array(self, name: str, schema: Schema, depth: int) -> list[Any]:
        """As many items as the schema wants; texts are those that the inputs hold."""
        if "prefixItems" in schema:
            return [self.fill(name, item, depth + 1) for item in schema["prefixItems"]]
        least, most = schema.get("minItems", 0), schema.get("maxItems", 5)
        if depth >= _MAX_DEPTH and not least:
            return []
        items = self.items(name, self.resolved(schema.get("items", {})), depth + 1)
        return [*items, *[items[-1]] * (least - len(items))][:most]

    def items(self, name: str, schema: Schema, depth: int) -> list[Any]:
        """At least one item for an array of this name."""
        if _is_text(schema) and "format" not in schema:
            labels = [f"Demo {_singular(_spoken(name))} {n} for {quoted(self.source.question)}" for n in (1, 2, 3)]
            return self.source.found(name) or labels
        unbounded = schema.keys() <= {"type", "title", "description"}
        if unbounded and schema.get("type") in ("integer", "number") and (found := numbers(self.source.text)):
            return [int(as_number(n)) if schema["type"] == "integer" else as_number(n) for n in found]
        return [self.fill(_singular(name), schema, depth)]

    def object(self, name: str, schema: Schema, depth: int) -> dict[str, Any]:
        """All properties with a value, only the required ones where the nesting ends; one entry of an open mapping."""
        properties = schema.get("properties")
        if properties is None:
            return self.mapping(schema, depth)
        required = schema.get("required", ())
        kept = required if depth >= _MAX_DEPTH else properties
        values = {key: self.fill(key, properties[key], depth + 1) for key in kept}
        return {key: value for key, value in values.items() if value is not None or key in required}

    def mapping(self, schema: Schema, depth: int) -> dict[str, Any]:
        """One entry, named after the first input."""
        names, values = schema.get("propertyNames"), schema.get("additionalProperties")
        if values is False:
            return {}
        # A nested dict may have integer keys without its schema saying so; a digit is a key for either.
        plain = next(iter(self.source.inputs), "demo") if depth == 0 else "1"
        key = str(self.fill("key", names, depth + 1)) if names else plain
        return {key: self.fill(key, values if isinstance(values, Mapping) else {}, depth + 1)}


def _is_text(schema: Schema) -> bool:
    return schema.get("type", "string") == "string" and not schema.keys() & {"$ref", "const", "enum", "anyOf", "oneOf"}


def _words(name: str) -> set[str]:
    return set(name.lower().split("_"))


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _singular(name: str) -> str:
    return name.removesuffix("s")


def _listed(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))
