"""Reads the prompts of DSPy's Chat, JSON and XML adapters: which fields, of which types, in which format."""

import ast
import enum
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

from tests.load.schemas import STRING, UNKNOWN, Schema, is_known, schema_of

_INPUTS = "Your input fields are:\n"
_OUTPUTS = "Your output fields are:\n"
_STRUCTURE = "All interactions will be structured in the following way"
_JSON_OUTPUTS = "Outputs will be a JSON object with the following fields."
_OBJECTIVE = "\nIn adhering to this structure, your objective is:"
_JSON_SCHEMA = "must adhere to the JSON schema: "
_ENUM = "must be one of: "
_REQUIREMENTS = ("\n\nRespond with the corresponding output fields", "\n\nRespond with a JSON object in the following")

_FIELD = re.compile(r"^(\d+)\. `(\w+)` \((.*?)\):(?: |$)", re.MULTILINE)
_NOTE = re.compile(r"# note: the value you produce (.*)")
_TOOL = re.compile(
    r"^\s*\(\d+\) (\w+)(?:, whose description is <desc>.*</desc>)?\. It takes arguments (\{.*\})\.$", re.MULTILINE
)
_FIRST_INPUT = re.compile(r"\A(?:\[\[ ## (\w+) ## \]\]|<(\w+)>)\n")
_OBSERVATION = re.compile(r"^(?:\[\[ ## observation_\d+ ## \]\]|<observation_\d+>)$", re.MULTILINE)


class Format(enum.Enum):
    """How an answer is laid out."""

    CHAT = "chat"
    JSON = "json"
    XML = "xml"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputField:
    """One field that an answer must hold."""

    name: str
    schema: Schema
    bare: bool = True
    """Whether a string stands for itself; DSPy reads the others as JSON, so they need quotes."""
    nested: bool = False
    """Whether XMLAdapter wants an object or a list as nested elements instead of JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that ``dspy.ReAct`` offers."""

    name: str
    arguments: dict[str, Schema]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a system message asks for."""

    format: Format
    inputs: tuple[str, ...] = ()
    fields: tuple[OutputField, ...]
    tools: tuple[Tool, ...] = ()
    """Only ReAct's prompts list tools; `finish` is one of them."""


@lru_cache(maxsize=1024)
def read_task(system: str) -> Task:
    """The task of a system message; one plain text when no adapter wrote it."""
    inputs, _, rest = system.partition(_OUTPUTS)
    outputs, _, rest = rest.partition(_STRUCTURE)
    structure, _, objective = rest.partition(_OBJECTIVE)
    if not structure:
        return Task(format=Format.PLAIN, fields=(OutputField(name="text", schema=STRING),))
    layout = _format(structure)
    notes = _Notes(layout, structure)
    return Task(
        format=layout,
        inputs=tuple(name for name, _ in _declared(inputs.partition(_INPUTS)[2])),
        fields=tuple(_output_field(name, annotation, notes) for name, annotation in _declared(outputs)),
        tools=tuple(_tools(objective)),
    )


def with_schema(task: Task, schema: Schema) -> Task:
    """The task with the output fields of a ``response_format`` that carries a JSON schema."""
    shared = {"$defs": schema.get("$defs", {})}
    properties = schema.get("properties", {})
    fields = (OutputField(name=name, schema={**each, **shared}) for name, each in properties.items())
    return replace(task, format=Format.JSON, fields=tuple(fields))


def first_input(task: Task, message: str) -> str:
    """The value of the first input field in a user message; empty when there is none."""
    start = _FIRST_INPUT.match(message)
    if start is None:
        return ""
    ends = _ends_of_section(task, message) if start[1] else [message.find(f"\n</{start[2]}>\n\n")]
    return message[start.end() : min((end for end in ends if end >= start.end()), default=None)].strip()


def holds_observation(message: str) -> bool:
    """Whether ReAct's trajectory in a user message has the result of a tool."""
    return _OBSERVATION.search(message) is not None


def _ends_of_section(task: Task, message: str) -> list[int]:
    headers = [message.find(f"\n\n[[ ## {name} ## ]]\n") for name in task.inputs]
    return headers + [message.rfind(requirement) for requirement in _REQUIREMENTS]


def _format(structure: str) -> Format:
    if _JSON_OUTPUTS in structure:
        return Format.JSON
    return Format.CHAT if "[[ ## completed ## ]]" in structure else Format.XML


def _declared(section: str) -> Iterator[tuple[str, str]]:
    """Name and annotation of each field of a numbered list, whose descriptions may hold anything."""
    number = 1
    for found, name, annotation in _FIELD.findall(section):
        if int(found) == number:
            yield name, annotation
            number += 1


class _Notes:
    """What the structure section of a system message tells about each output field."""

    def __init__(self, layout: Format, structure: str) -> None:
        self.structure = structure
        self.shown = json.loads(structure.partition(_JSON_OUTPUTS)[2]) if layout is Format.JSON else None
        self.xml = layout is Format.XML

    def note(self, name: str) -> str:
        """The type that is asked for, in words; empty for a string."""
        if self.shown is not None:
            found = _NOTE.search(self.shown[name])
        else:
            found = re.search(rf"^\{{{name}\}} +{_NOTE.pattern}$", self.structure, re.MULTILINE)
        return found[1] if found else ""

    def nested_xml(self, name: str) -> Schema | None:
        """The shape of a field that XMLAdapter shows as nested elements."""
        found = re.search(rf"^<{name}>.+</{name}>$", self.structure, re.MULTILINE) if self.xml else None
        return _schema_of_element(ElementTree.fromstring(found[0])) if found else None


def _output_field(name: str, annotation: str, notes: _Notes) -> OutputField:
    note = notes.note(name)
    if note.startswith(_JSON_SCHEMA):
        schema = json.loads(note.removeprefix(_JSON_SCHEMA))
        return OutputField(name=name, schema=schema, bare=_is_optional_string(schema))
    if note.startswith(_ENUM):
        return OutputField(name=name, schema={"enum": [_enum_value(note)]})
    schema = schema_of(annotation)
    shape = notes.nested_xml(name)
    if shape is not None:
        return OutputField(name=name, schema=schema if is_known(schema) else shape, nested=True)
    return OutputField(name=name, schema=schema if is_known(schema) else STRING)


def _is_optional_string(schema: Schema) -> bool:
    choices = schema.get("anyOf", ())
    return STRING in choices and {"type": "null"} in choices


def _enum_value(note: str) -> str | int:
    """The first value; the prompt does not tell a number from its text, and numbers are the likelier of the two."""
    value = note.removeprefix(_ENUM).partition("; ")[0]
    return int(value) if value.isdecimal() else value


def _schema_of_element(element: ElementTree.Element) -> Schema:
    """The schema of ``<person><name>...</name></person>``, which leaves the types of its leaves open."""
    children = {child.tag: _schema_of_element(child) for child in element}
    if not children:
        return UNKNOWN
    if list(children) == ["item"]:
        return {"type": "array", "items": children["item"]}
    return {"type": "object", "properties": children}


def _tools(objective: str) -> Iterator[Tool]:
    for name, arguments in _TOOL.findall(objective):
        yield Tool(name=name, arguments=_arguments(arguments))


def _arguments(text: str) -> dict[str, Any]:
    """The arguments' schemas, printed as Python prints a dict."""
    try:
        return dict(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return {}
