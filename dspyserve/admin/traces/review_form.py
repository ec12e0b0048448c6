"""The form of one opinion: score, label, comment, and what the outputs should have been."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from dspyserve.admin.traces.output_fields import BLANK, JSONField, OutputField, output_fields, plain_lines
from dspyserve.admin.traces.raw import as_text
from dspyserve.errors import Fault
from dspyserve.models import Feedback
from dspyserve.reviewing.feedback import LENGTHS, OPINIONS

DEFAULT_NAME: Final = "review"
"""What an opinion is called unless its author says otherwise."""
WHOLE: Final = "correction"
"""The field of a program that does not say what its outputs are: one JSON object for all of them."""
_PREFIX: Final = "correction."


class LinesField(forms.CharField):
    """A text of several lines."""

    widget = forms.Textarea

    def to_python(self, value: Any) -> str:
        """The text, with every end of line written in one way."""
        return plain_lines(super().to_python(value) or "")


class ReviewForm(forms.Form):
    """What one person thinks of a trace; its faults stand beside the fields, with what was typed."""

    name = forms.CharField(label=_("Name"), max_length=LENGTHS["name"])
    span_id = forms.ChoiceField(label=_("About"), required=False)
    score = forms.FloatField(label=_("Score"), required=False)
    label = forms.CharField(label=_("Label"), required=False, max_length=LENGTHS["label"])
    comment = LinesField(label=_("Comment"), required=False, max_length=LENGTHS["comment"])

    def __init__(
        self,
        data: Any = None,
        *,
        outputs: Mapping[str, Any],
        schema: Mapping[str, Any] | None = None,
        edited: Feedback | None = None,
        span_id: str = "",
        name: str = DEFAULT_NAME,
    ) -> None:
        """`schema` is that of the outputs, None where they may not be corrected.

        `edited` is an own opinion; a new one is called `name` unless its author says otherwise, and may be about the
        span `span_id`.
        """
        super().__init__(data, auto_id="review_%s", label_suffix="", initial=_initial(edited, name))
        self.outputs, self.edited = outputs, edited
        # A script may have chosen another one since; whether it exists is found out when the opinion is stored.
        sent = self.data.get("span_id", "")[: LENGTHS["span_id"]]
        spans = dict.fromkeys(filter(None, (edited.span_id if edited else "", span_id, sent)))
        about = [("", _("The whole run")), *((span, _("Span %s") % span) for span in spans)]
        self.fields["span_id"].choices = about  # type: ignore[attr-defined]
        # What a script calls a span that is chosen later.
        self.fields["span_id"].widget.attrs["data-label"] = _("Span %s")
        self.fields["name"].widget.attrs["list"] = "review_names"
        self.fields["score"].widget.attrs["step"] = "any"
        self.fields["comment"].widget.attrs["rows"] = 3
        self._add_corrections(schema)

    @property
    def opinion_fields(self) -> list[forms.BoundField]:
        """What is said of the trace."""
        return [self[name] for name in ("name", "span_id", "score", "label", "comment")]

    @property
    def correction_fields(self) -> list[forms.BoundField]:
        """One for every output."""
        return [self[name] for name in self._corrections()]

    @property
    def has_correction(self) -> bool:
        """Whether something is corrected, or was meant to be."""
        if self.is_bound:
            return any(self[name].errors or name in self.changed_data for name in self._corrections())
        return self.edited is not None and bool(self.edited.correction)

    @property
    def changed_parts(self) -> list[str]:
        """The parts of the opinion that differ from what it was."""
        return list(dict.fromkeys(name.partition(".")[0] for name in self.changed_data))

    def clean(self) -> dict[str, Any]:
        """Something has to be said."""
        cleaned = super().clean() or {}
        if not self.errors and not self.opinion.keys() & set(OPINIONS):
            raise ValidationError(_("Give a score, a label, a comment or a correction."))
        return cleaned

    @property
    def opinion(self) -> dict[str, Any]:
        """The body of the feedback, with what was filled in."""
        said = {name: self.cleaned_data.get(name) for name in ("name", "span_id", "score", "label", "comment")}
        body = {name: value for name, value in said.items() if value not in (None, "")}
        correction = self._correction()
        return {**body, "correction": correction} if correction else body

    def add_faults(self, faults: Iterable[Fault]) -> None:
        """Show what was wrong, each fault at its field."""
        for fault in faults:
            name, message = _place(fault)
            self.add_error(name if name in self.fields else None, message)

    def _add_corrections(self, schema: Mapping[str, Any] | None) -> None:
        if schema is None:
            return
        was = (self.edited.correction if self.edited else None) or {}
        for name, field in output_fields(schema).items():
            field.show(was.get(name, self.outputs.get(name)))
            self.fields[_PREFIX + name] = field
        if not schema.get("properties"):
            whole = JSONField(required=False, label=_("Outputs as they should have been"))
            whole.help_text = _("A JSON object of output fields.")
            whole.show(was or None)
            self.fields[WHOLE] = whole

    def _corrections(self) -> list[str]:
        return [name for name in self.fields if name == WHOLE or name.startswith(_PREFIX)]

    def _correction(self) -> Any:
        names = self._corrections()
        if not names:
            # Who may not see texts leaves a correction as it was.
            return self.edited.correction if self.edited else None
        if WHOLE in names:
            value = self.cleaned_data.get(WHOLE, BLANK)
            return None if value is BLANK else value
        values = {name.removeprefix(_PREFIX): self.cleaned_data.get(name, BLANK) for name in names}
        return {name: value for name, value in values.items() if self._is_changed(name, value)}

    def _is_changed(self, name: str, value: Any) -> bool:
        output, field = self.outputs.get(name), self.fields[_PREFIX + name]
        if value is BLANK or not isinstance(field, OutputField):
            return False
        # A field that shows what it would show of the output is as it was, whatever a text cannot tell.
        given = plain_lines(self.data.get(_PREFIX + name, ""))
        return given != field.text_of(output) and as_text(value) != as_text(output)


def _initial(edited: Feedback | None, name: str) -> dict[str, Any]:
    if edited is None:
        return {"name": name}
    return {name: getattr(edited, name) for name in ("name", "span_id", "score", "label", "comment")}


def _place(fault: Fault) -> tuple[str, str]:
    first, _slash, rest = fault.pointer.removeprefix("/").partition("/")
    if first != "correction" or not rest:
        return first, fault.message
    name, _slash, inner = rest.partition("/")
    field = _PREFIX + name.replace("~1", "/").replace("~0", "~")
    return field, f"{inner}: {fault.message}" if inner else fault.message
