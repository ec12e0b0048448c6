"""The outputs of a program as fields of Django's forms: what people fill in as the right values.

A form's text and a value are told apart: `text_of` gives what a field shows of a value, and the field's `clean` gives
the value of a text, or `BLANK` where nothing was filled in.
"""

from __future__ import annotations

from typing import Any, Final, cast

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from dspyserve.admin.programs.contract import Schema, choices, resolved
from dspyserve.admin.traces.raw import as_text
from dspyserve.encoding import decode, encode
from dspyserve.errors import MalformedBody

MAX_ROWS: Final = 14
"""Lines of the highest text field; it scrolls beyond them."""
_COLUMNS: Final = 80


class _Blank:
    """Says that nothing was filled in, which is not the same as null."""

    def __repr__(self) -> str:
        return "BLANK"


BLANK: Final = _Blank()


class OutputField(forms.Field):
    """A field for the values of one JSON Schema."""

    def text_of(self, value: Any) -> str:
        """What the field shows of `value`, a value of its schema or any other."""
        return "" if value is None else _text(value)

    def to_python(self, value: Any) -> Any:
        """What was sent, with every end of line written in one way, so that it compares with what was shown."""
        return plain_lines(value or "")

    def show(self, value: Any) -> None:
        """Begin with `value`."""
        self.initial = self.text_of(value)
        if isinstance(self.widget, forms.Textarea):
            self.widget.attrs["rows"] = _rows(self.initial)


class TextField(OutputField):
    """A string, to the letter but for the ends of lines, which browsers write as they like."""

    widget = forms.Textarea

    def clean(self, value: Any) -> Any:
        """The string."""
        text = self.to_python(value)
        if "\x00" in text:
            raise ValidationError(_("NUL is no character of a text."))
        return text


class NumberField(OutputField):
    """A number; with `whole`, one without a fraction."""

    widget = forms.NumberInput

    def __init__(self, *, whole: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.whole = whole
        self.widget.attrs["step"] = "1" if whole else "any"

    def clean(self, value: Any) -> Any:
        """The number, an int where it is written as one."""
        text = (value or "").strip()
        if not text:
            return BLANK
        is_int = text.lstrip("+-").isdecimal() and text.isascii()
        reader: forms.Field = forms.IntegerField() if self.whole or is_int else forms.FloatField()
        return reader.clean(text)


class ChoiceField(OutputField):
    """One of several values, whose JSON is sent."""

    widget = forms.Select

    def __init__(self, values: list[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.values = {_json(value): value for value in values}
        labels = {True: _("true"), False: _("false"), None: _("null")}
        named = [(key, labels[value] if _is_constant(value) else _text(value)) for key, value in self.values.items()]
        cast(forms.Select, self.widget).choices = [("", "–"), *named]

    def text_of(self, value: Any) -> str:
        """The JSON of the choice; empty where it is none of them."""
        key = _json(value)
        return key if key in self.values else ""

    def clean(self, value: Any) -> Any:
        """The value that was chosen."""
        if not value:
            return BLANK
        if value not in self.values:
            raise ValidationError(_("This is not one of the choices."))
        return self.values[value]


class JSONField(OutputField):
    """Any value, as JSON."""

    widget = forms.Textarea

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widget.attrs |= {"class": "dspyserve-code", "spellcheck": "false"}

    def text_of(self, value: Any) -> str:
        """Indented JSON."""
        return "" if value is None else plain_lines(as_text(value))

    def clean(self, value: Any) -> Any:
        """The value that the JSON says."""
        text = (value or "").strip()
        if not text:
            return BLANK
        try:
            return decode(text)
        except MalformedBody:
            raise ValidationError(_("This is not valid JSON.")) from None


def output_fields(schema: Schema) -> dict[str, OutputField]:
    """A field for every property of an object's `schema`, none of them required; `$ref` is looked up in its `$defs`."""
    definitions = schema.get("$defs", {})
    properties = schema.get("properties", {})
    return {name: _field(name, resolved(part, definitions), definitions) for name, part in properties.items()}


def plain_lines(text: str) -> str:
    """`text` with every end of line written in one way."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _field(name: str, schema: Schema, definitions: Schema) -> OutputField:
    options = choices(schema, definitions)
    others = [option for option in options if option.get("type") != "null"]
    common = {"required": False, "label": name, "help_text": schema.get("description", "")}
    if len(others) != 1:
        return JSONField(**common)
    nullable, (schema,) = len(options) > 1, others
    if (values := _values(schema)) is not None:
        return ChoiceField([*values, *([None] if nullable and None not in values else [])], **common)
    match schema.get("type"):
        case "string":
            return TextField(**common)
        case "integer":
            return NumberField(whole=True, **common)
        case "number":
            return NumberField(**common)
    return JSONField(**common)


def _values(schema: Schema) -> list[Any] | None:
    if "enum" in schema:
        return list(schema["enum"])
    if "const" in schema:
        return [schema["const"]]
    return [True, False] if schema.get("type") == "boolean" else None


def _is_constant(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _text(value: Any) -> str:
    return plain_lines(value) if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return encode(value).decode()


def _rows(text: str) -> int:
    lines = sum(1 + len(line) // _COLUMNS for line in text.splitlines()[:MAX_ROWS])
    return min(max(lines, 2), MAX_ROWS)
