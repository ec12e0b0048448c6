"""The form of a program's inputs: a widget for every field of its schema, for the playground and for replays.

`static/dspyserve/admin/inputs.js` reads it the same way in the browser.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.utils.translation import gettext as _

from dspyserve.admin.programs.contract import FieldRow, Schema, choices, fields
from dspyserve.admin.traces.raw import as_text
from dspyserve.encoding import decode
from dspyserve.errors import Fault, MalformedBody

TEXT: Final = "text"
NUMBER: Final = "number"
BOOLEAN: Final = "boolean"
CHOICE: Final = "choice"
JSON: Final = "json"

_INPUTS: Final = "/inputs/"


@dataclass(slots=True, kw_only=True)
class InputField:
    """One widget. `value` is its text; of a `BOOLEAN`, "true" or nothing; of a `CHOICE`, the JSON of an option.

    An `is_blank_left_out` field that is left blank is not sent, and takes its default. `is_text_taken` tells of a field
    of kind `JSON` that what is no JSON is sent as a text.
    """

    row: FieldRow
    id: str
    kind: str
    value: str = ""
    options: Sequence[tuple[str, str]] = ()
    is_blank_left_out: bool = False
    is_text_taken: bool = False
    placeholder: str = ""
    note: str = ""
    errors: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The field's own name."""
        return self.row.name

    @property
    def pointer(self) -> str:
        """The name as a part of a JSON pointer."""
        return self.row.name.replace("~", "~0").replace("/", "~1")

    @property
    def height(self) -> int:
        """Of a text's widget, in lines: as much as it holds, within reason."""
        lines = sum(1 + len(line) // 80 for line in self.value.split("\n"))
        return min(max(lines, 3), 20)

    @property
    def step(self) -> str:
        """Of a number."""
        kinds = {option.get("type") for option in choices(self.row.schema, {})}
        return "any" if "number" in kinds else "1"

    def set(self, value: Any) -> None:
        """Show `value`, which is JSON."""
        if value is None and self.kind != JSON:
            self.value = ""
        elif self.kind == BOOLEAN:
            self.value = "true" if value is True else ""
        elif self.kind in (TEXT, NUMBER) or (self.is_text_taken and isinstance(value, str) and not _is_json(value)):
            self.value = as_text(value)
        elif self.kind == CHOICE or isinstance(value, str):
            self.value = _json(value)
        else:
            self.value = "" if value is None else as_text(value)

    def read(self) -> Any:
        """What the widget says, as JSON.

        Raises:
            MalformedBody: it should be JSON and is not.
        """
        if self.kind == TEXT:
            return self.value
        if self.kind == BOOLEAN:
            return self.value == "true"
        try:
            return decode(self.value)
        except MalformedBody:
            if self.kind == NUMBER or self.is_text_taken:
                # The program's schema says what it wants instead.
                return self.value
            raise


class InputForm:
    """The widgets of all fields, what they hold, and what is wrong with it."""

    def __init__(self, schema: Schema) -> None:
        """`schema` is a program's `input_schema`; the fields show its defaults."""
        definitions = schema.get("$defs", {})
        self.fields = [_field(row, f"input-{n}", definitions) for n, row in enumerate(fields(schema))]
        self.errors: list[str] = []

    def fill(self, inputs: Mapping[str, Any]) -> None:
        """Show `inputs`."""
        for item in self.fields:
            if item.name in inputs:
                item.set(inputs[item.name])

    def read(self, data: Mapping[str, str]) -> dict[str, Any]:
        """The inputs that were sent by the form; what is no JSON becomes an error of its field."""
        inputs: dict[str, Any] = {}
        for item in self.fields:
            # Browsers send line breaks of texts as CR LF, whatever was typed.
            item.value = data.get(item.id, "").replace("\r\n", "\n")
            if item.is_blank_left_out and not item.value.strip():
                continue
            try:
                inputs[item.name] = item.read()
            except MalformedBody:
                item.errors.append(_("This is not JSON."))
        return inputs

    @property
    def is_valid(self) -> bool:
        """Whether nothing is known to be wrong."""
        return not self.errors and not any(item.errors for item in self.fields)

    def tell(self, faults: Iterable[Fault]) -> None:
        """Put each of `faults` beside the field that its pointer leads to."""
        known = {_INPUTS + item.pointer: item for item in self.fields}
        for fault in faults:
            name, _, rest = fault.pointer.removeprefix(_INPUTS).partition("/")
            item = known.get(_INPUTS + name)
            if item is None:
                self.errors.append(f"{fault.pointer}: {fault.message}")
            else:
                item.errors.append(f"{rest}: {fault.message}" if rest else fault.message)


def _field(row: FieldRow, id_: str, definitions: Schema) -> InputField:
    options = choices(row.schema, definitions)
    values = [option for option in options if option.get("type") != "null"]
    is_nullable = len(values) < len(options)
    kind = _kind(values)
    if kind == BOOLEAN and is_nullable:
        # A box is either ticked or not; here is a third answer.
        kind, values = CHOICE, [{"enum": [True, False]}]
    has_default = row.schema.get("default") is not None
    made = InputField(
        row=row,
        id=id_,
        kind=kind,
        options=_options(values, is_nullable=is_nullable or has_default, is_required=row.is_required),
        # A text may be empty on purpose, unless nothing is a value too.
        is_blank_left_out=kind not in (TEXT, BOOLEAN) or (kind == TEXT and is_nullable and not has_default),
        is_text_taken=kind == JSON and any(option.get("type") == "string" for option in values),
        placeholder=_placeholder(values) if kind == JSON else "",
    )
    if has_default:
        made.set(row.schema["default"])
    return made


def _kind(values: Sequence[Schema]) -> str:
    if len(values) != 1:
        return JSON
    (schema,) = values
    if "enum" in schema or "const" in schema:
        return CHOICE
    kind = schema.get("type")
    if kind == "boolean":
        return BOOLEAN
    if kind in ("integer", "number"):
        return NUMBER
    return TEXT if kind == "string" else JSON


def _options(values: Sequence[Schema], *, is_nullable: bool, is_required: bool) -> list[tuple[str, str]]:
    found = [item for schema in values for item in schema.get("enum", [schema["const"]] if "const" in schema else [])]
    blank = [("", "–")] if is_nullable or not is_required or len(found) > 1 else []
    return [*blank, *((_json(item), item if isinstance(item, str) else _json(item)) for item in found)]


def _placeholder(values: Sequence[Schema]) -> str:
    kinds = {schema.get("type") for schema in values}
    if "array" in kinds and "object" not in kinds:
        return "[…]"
    members: Mapping[str, Any] = next((schema["properties"] for schema in values if schema.get("properties")), {})
    return "{" + ", ".join(f"{_json(name)}: …" for name in members) + "}" if members else "{…}"


def _is_json(text: str) -> bool:
    try:
        decode(text)
    except MalformedBody:
        return False
    return True


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return as_text(value)
