"""The search language: one line of text that says what a `TraceFilter` says, and the way back.

    program:qa status:failed cost>0.01 duration>2s tag:beta meta.tenant=acme -user:ann "free text"

`parse(unparse(wanted)) == wanted` for every filter that a search or a form can make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.utils.translation import gettext as _

from dspyserve.models import Trace
from dspyserve.tracing import query_values as values
from dspyserve.tracing.query_terms import BadValue, Repeated, Term, TermError, UnknownKey, UnreadableSearch, read_terms
from dspyserve.tracing.search import MEASURES, Limit, Opinion, TraceFilter

MAX_LENGTH: Final = 2_000
MAX_TERMS: Final = 30
"""Words of a search: databases bound the depth of a condition."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that takes one value: the field, how it is read and written, and whether it can be excluded."""

    field: str
    read: Callable[[str], Any] = values.read_text
    write: Callable[[Any], str] = str
    is_negatable: bool = True


SINGLE: Final[Mapping[str, Key]] = {
    "program": Key("program"),
    "version": Key("version", values.read_version),
    "status": Key("status", partial(values.read_choice, choices=Trace.Status.values)),
    "transport": Key("transport", partial(values.read_choice, choices=Trace.Transport.values)),
    "model": Key("model"),
    "env": Key("environment"),
    "error": Key("error_type"),
    "session": Key("session_id"),
    "batch": Key("batch_id"),
    "user": Key("user"),
    "key": Key("api_key"),
    "time": Key("window", values.read_window, is_negatable=False),
    "since": Key("since", values.read_moment, lambda moment: str(moment.isoformat()), is_negatable=False),
    "until": Key("until", values.read_moment, lambda moment: str(moment.isoformat()), is_negatable=False),
}
ALIASES: Final = {"environment": "env", "error_type": "error", "session_id": "session", "api_key": "key", "tags": "tag"}
TRUTHS: Final = {
    ("has", "error"): ("has_errors", True),
    ("has", "errors"): ("has_errors", True),
    ("has", "feedback"): ("has_feedback", True),
    ("is", "reviewed"): ("is_reviewed", True),
    ("is", "unreviewed"): ("is_reviewed", False),
}
"""Keys and values that something is so, and the field that says it."""

_AMOUNTS: Final = {
    "duration": (values.read_duration, values.written_duration),
    "first_token": (values.read_duration, values.written_duration),
    "cost": (values.read_dollars, values.written_number),
}
_COUNT: Final = (values.read_count, values.written_count)
KEYS: Final = (*SINGLE, *MEASURES, "tag", "meta", "feedback", "has", "is")


def parse(text: str) -> TraceFilter:
    """What `text` asks for.

    Raises:
        UnreadableSearch: some of it is not understood; the error tells all of it.
    """
    if len(text) > MAX_LENGTH:
        raise UnreadableSearch([BadValue(text[:20] + "…", _("At most %d characters are possible.") % MAX_LENGTH)])
    return filter_of_terms(read_terms(text))


def unparse(wanted: TraceFilter) -> str:
    """The search that asks for `wanted`."""
    return " ".join(map(str, terms_of(wanted)))


def filter_of_terms(terms: Iterable[Term]) -> TraceFilter:
    """What all of `terms` ask for.

    Raises:
        UnreadableSearch: some of them are not understood.
    """
    found: dict[str, Any] = {}
    errors: list[TermError] = []
    try:
        for number, term in enumerate(terms):
            if number == MAX_TERMS:
                raise BadValue(str(term), _("At most %d words are possible.") % MAX_TERMS)
            try:
                _add(found, term)
            except TermError as error:
                errors.append(error)
    except TermError as error:
        errors.append(error)
    if errors:
        raise UnreadableSearch(errors)
    return TraceFilter(**found)


def terms_of(wanted: TraceFilter) -> Iterator[Term]:
    """The words that say `wanted`."""
    for name, key in SINGLE.items():
        if (value := getattr(wanted, key.field)) is not None:
            yield Term(name, key.write(value), "=" if name == "model" else ":")
    if wanted.model_prefix is not None:
        yield Term("model", wanted.model_prefix)
    yield from _truths(wanted)
    for tag in wanted.tags:
        yield Term("tag", tag)
    for name, value in wanted.metadata:
        yield Term("meta", value, "=", name)
    for opinion in wanted.opinions:
        is_label = isinstance(opinion.value, str)
        value = str(opinion.value) if isinstance(opinion.value, str) else values.written_number(opinion.value)
        yield Term("feedback", value, opinion.operator, opinion.name, is_label and opinion.operator != "")
    for limit in wanted.limits:
        yield Term(limit.measure, _AMOUNTS.get(limit.measure, _COUNT)[1](limit.value), limit.operator)
    for text in wanted.texts:
        yield Term("", text)
    for unwanted in wanted.excluded:
        for term in terms_of(unwanted):
            yield Term(term.key, term.value, term.operator, term.name, term.is_quoted, True)


def _truths(wanted: TraceFilter) -> Iterator[Term]:
    if wanted.has_errors is not None:
        yield Term("has", "error", is_negated=not wanted.has_errors)
    if wanted.has_feedback is not None:
        yield Term("has", "feedback", is_negated=not wanted.has_feedback)
    if wanted.is_reviewed is not None:
        yield Term("is", "reviewed" if wanted.is_reviewed else "unreviewed")


def _add(found: dict[str, Any], term: Term) -> None:
    try:
        field, value = _meaning(term)
    except TermError:
        raise
    except ValueError as error:
        raise BadValue(str(term), str(error)) from None
    if term.is_negated and not isinstance(value, bool):
        field, value = "excluded", (TraceFilter(**{field: value}),)
    if not isinstance(value, tuple):
        if found.setdefault(field, value) != value:
            raise Repeated(str(term), _("The search asks for something else already, and both cannot be."))
    elif value[0] not in found.get(field, ()):
        found[field] = (*found.get(field, ()), *value)


def _meaning(term: Term) -> tuple[str, Any]:
    name = ALIASES.get(term.key, term.key)
    if not name:
        return "texts", (values.read_text(term.value),)
    if name in SINGLE:
        return _single(name, term)
    if name in MEASURES:
        operator = "=" if term.operator == ":" else term.operator
        return "limits", (Limit(name, operator, _AMOUNTS.get(name, _COUNT)[0](term.value)),)
    if name == "feedback":
        return "opinions", (_opinion(term),)
    if name == "tag":
        _check_operator(term)
        return "tags", (values.read_text(term.value),)
    if name == "meta":
        return "metadata", (_entry(term),)
    if name in ("has", "is"):
        return _truth(name, term)
    raise _unknown(name, term)


def _unknown(name: str, term: Term) -> UnknownKey:
    hint = values.closest_hint(name, KEYS) + " " + _("Quote it to search for it as text.")
    return UnknownKey(str(term), _("There is no “%s”.") % term.key[:40] + hint, values.closest(name, KEYS))


def _single(name: str, term: Term) -> tuple[str, Any]:
    _check_operator(term)
    key = SINGLE[name]
    if term.is_negated and not key.is_negatable:
        raise ValueError(_("This cannot stand after a minus."))
    # A model is written by how it begins, unless it is said to be equal.
    is_prefix = name == "model" and term.operator == ":"
    return "model_prefix" if is_prefix else key.field, key.read(values.read_text(term.value))


def _check_operator(term: Term) -> None:
    if term.operator not in (":", "="):
        message = _("“%(key)s” is compared with : alone, not with %(operator)s.")
        raise ValueError(message % {"key": term.key, "operator": term.operator})


def _entry(term: Term) -> tuple[str, str]:
    _check_operator(term)
    if not term.name:
        raise ValueError(_("A name is needed, such as meta.tenant=acme."))
    return values.read_text(term.name), values.read_text(term.value)


def _opinion(term: Term) -> Opinion:
    if not term.name:
        raise ValueError(_("A name is needed, such as feedback:helpful or feedback:helpful<0.5."))
    name = values.read_text(term.name)
    if not term.operator:
        return Opinion(name)
    operator = "=" if term.operator == ":" else term.operator
    if term.is_quoted and operator != "=":
        raise ValueError(_("A label is equal or not; only a score is more or less."))
    if term.is_quoted or (operator == "=" and not _is_number(term.value)):
        return Opinion(name, operator, values.read_text(term.value))
    return Opinion(name, operator, values.read_number(term.value))


def _is_number(text: str) -> bool:
    try:
        values.read_number(text)
    except ValueError:
        return False
    return True


def _truth(name: str, term: Term) -> tuple[str, Any]:
    _check_operator(term)
    choices = [value for key, value in TRUTHS if key == name]
    field, truth = TRUTHS[name, values.read_choice(term.value, choices)]
    return field, truth is not term.is_negated
