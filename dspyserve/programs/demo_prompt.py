"""Prompts of DSPy's Chat, JSON and XML adapters: what they ask for, and how an answer to them is written."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin
from xml.sax.saxutils import escape, quoteattr

import dspy
import pydantic

Schema = Mapping[str, Any]
"""A JSON Schema; `{}` where nothing is known of a field, which text fills."""

Style = Literal["chat", "json", "xml", "plain"]

_REQUESTS: dict[Style, tuple[str, re.Pattern[str]]] = {
    "chat": ("Respond with the corresponding output fields, starting with", re.compile(r"`\[\[ ## (\w+) ## \]\]`")),
    "json": ("Respond with a JSON object in the following order of fields", re.compile(r"(?:: |, then )`(\w+)`")),
    "xml": ("Respond with the corresponding output fields wrapped in XML tags", re.compile(r"`<(\w+)>`")),
}
"""How each adapter's prompt begins to ask for the output fields, and how it names one."""

OFFERED = frozenset(["tools"])
"""Inputs that `dspy.ReActV2` repeats at every step, while it gives the others with the first one only."""

_JSON_OUTPUTS = "Outputs will be a JSON object with the following fields.\n\n"
_INPUT_FIELDS = re.compile(r"Your input fields are:\n(.*?)\nYour output fields are:\n", re.DOTALL)
_FIELD_NAME = re.compile(r"^\d+\. `(\w+)` \(", re.MULTILINE)
_NOTE = re.compile(r"^\{(\w+)\} +# note: the value you produce (.+)$", re.MULTILINE)
_CHAT_HEADER = re.compile(r"^\[\[ ## (\w+) ## \]\]$", re.MULTILINE)
# What XML 1.0 cannot carry; no answer should repeat it.
_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one prompt asks for."""

    style: Style
    """The format that the answer must have."""
    instructions: str
    """The system message."""
    inputs: Mapping[str, str]
    """The input fields' texts. A plain prompt is one input, `prompt`."""
    outputs: Mapping[str, Schema]
    """The requested fields in order. A plain prompt asks for one, `answer`."""
    noted: Container[str] = ()
    """The fields whose values' form the prompt describes in words; XML shows the others' as nested elements."""
    steps: Sequence[str] = ()
    """The messages between the inputs and the request: an agent's steps so far."""


def read_task(system: str, messages: Sequence[tuple[str, str]]) -> Task:
    """What the prompt asks for that consists of the message `system` and `messages`, pairs of role and text."""
    users = [number for number, (role, _) in enumerate(messages) if role == "user"]
    texts = [_CONTROL.sub("", text) for _, text in messages]
    prompt = texts[users[-1]] if users else ""
    style, position = max(((style, prompt.rfind(marker)) for style, (marker, _) in _REQUESTS.items()), key=_position)
    if position < 0:
        return Task(style="plain", instructions=system, inputs={"prompt": prompt}, outputs={"answer": {}})
    names, notes = _input_names(system), _schemas(system)
    given = {number: _inputs(texts[number], style, names) for number in users}
    first = next((number for number in reversed(users) if given[number].keys() - OFFERED), users[-1])
    return Task(
        style=style,
        instructions=system,
        inputs=given[first] | given[users[-1]],
        outputs={name: _completed(notes.get(name), name) for name in _requested(prompt[position:], style)},
        noted=notes.keys(),
        steps=texts[first + 1 : users[-1]],
    )


def write_answer(task: Task, values: Mapping[str, Any]) -> str:
    """`values` of the requested fields in the format that `task` asks for."""
    match task.style:
        case "chat":
            # A missing section is None for DSPy, while the text "None" would be text.
            sections = [f"[[ ## {name} ## ]]\n{_text(value)}" for name, value in values.items() if value is not None]
            return "\n\n".join([*sections, "[[ ## completed ## ]]"])
        case "json":
            return json.dumps(values, indent=2, ensure_ascii=False)
        case "xml":
            return "\n\n".join(_field_element(task, name, value) for name, value in values.items())
        case "plain":
            return "\n\n".join(_text(value) for value in values.values())


def _position(found: tuple[Style, int]) -> int:
    return found[1]


def _requested(request: str, style: Style) -> list[str]:
    names = _REQUESTS[style][1].findall(request)
    # Chat's last marker has the form of a field.
    return names[:-1] if style == "chat" else names


def _inputs(text: str, style: Style, names: tuple[str, ...]) -> dict[str, str]:
    """The input fields' texts in a user message, whose last part may be the request."""
    body = text[: text.rfind(_REQUESTS[style][0])] if _REQUESTS[style][0] in text else text
    if style == "xml":
        found = ((name, re.search(rf"^<{name}>\n(.*?)\n</{name}>$", body, re.DOTALL | re.MULTILINE)) for name in names)
        return {name: match.group(1) for name, match in found if match}
    # Headers of other names belong to a value: ReAct's trajectory has some.
    headers = [header for header in _CHAT_HEADER.finditer(body) if not names or header.group(1) in names]
    ends = [*(header.start() for header in headers), len(body)][1:]
    texts: dict[str, str] = {}
    for header, end in zip(headers, ends, strict=True):
        texts.setdefault(header.group(1), body[header.end() : end].strip())
    return texts


@lru_cache(maxsize=256)
def _input_names(system: str) -> tuple[str, ...]:
    fields = _INPUT_FIELDS.search(system)
    return tuple(_FIELD_NAME.findall(fields.group(1))) if fields else ()


@lru_cache(maxsize=256)
def _schemas(system: str) -> Mapping[str, Schema]:
    """The output fields' schemas, from the notes that describe their values."""
    return {name: _schema(note) for name, note in reversed(_NOTE.findall(_structure(system)))}


def _structure(system: str) -> str:
    """The part of the system message that holds the notes, each at the start of a line."""
    _, found, outputs = system.partition(_JSON_OUTPUTS)
    if not found:
        return system
    try:
        fields, _ = json.JSONDecoder().raw_decode(outputs)
    except ValueError:
        return system
    return "\n".join(str(value) for value in fields.values())


def _schema(note: str) -> Schema:
    kind, _, detail = note.partition(": ")
    match kind:
        case "must be True or False":
            return {"type": "boolean"}
        case "must be a single int value":
            return {"type": "integer"}
        case "must be a single float value":
            return {"type": "number"}
        case "must be one of" | "must exactly match (no extra characters) one of":
            return {"enum": detail.split("; ")}
        case "must adhere to the JSON schema":
            return _decoded(detail)
    return {}


def _decoded(schema: str) -> Schema:
    try:
        decoded, _ = json.JSONDecoder().raw_decode(schema)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _completed(noted: Schema | None, name: str) -> Schema:
    """The schema in the prompt; the running predictor's annotation completes what the prompt leaves out.

    XML prompts show nested structures without the types in them, no prompt shows the names of an Enum's members, by
    which DSPy reads those whose values are not text, and JSON Schema has no word for a dict's integer keys.
    """
    annotation = _annotation(name)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {"enum": [member.value if isinstance(member.value, str) else member.name for member in annotation]}
    if noted is None and annotation not in (None, str, dspy.Reasoning):
        noted = _declared(annotation)
    if get_origin(annotation) is dict and get_args(annotation)[0] is int:
        return {**(noted or {}), "propertyNames": {"type": "integer"}}
    return noted or {}


def _annotation(name: str) -> Any:
    running = dspy.settings.caller_modules or [None]
    fields = getattr(getattr(running[-1], "signature", None), "output_fields", {})
    return fields[name].annotation if name in fields else None


def _declared(annotation: Any) -> Schema:
    try:
        return pydantic.TypeAdapter(annotation).json_schema(by_alias=False)
    except (pydantic.PydanticUserError, pydantic.PydanticSchemaGenerationError):
        return {}


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | bool) else json.dumps(value, ensure_ascii=False)


def _field_element(task: Task, name: str, value: Any) -> str:
    schema = task.outputs[name]
    # An open mapping is JSON, for elements would turn its numbers into text.
    is_open = schema.get("type") == "object" and "properties" not in schema
    if isinstance(value, dict | list) and name not in task.noted and not is_open:
        return _nested(name, value)
    return f"<{name}>\n{'' if value is None else escape(_text(value))}\n</{name}>"


def _nested(name: str, value: Any) -> str:
    tag, key = (name, "") if name.isidentifier() else ("entry", f" key={quoteattr(name)}")
    if isinstance(value, list):
        content = "".join(_nested("item", item) for item in value)
    elif isinstance(value, dict):
        content = "".join(_nested(str(child), item) for child, item in value.items())
    else:
        content = "" if value is None else escape(_text(value))
    return f"<{tag}{key}>{content}</{tag}>"
