"""What the list's address asks for, and addresses that ask for it: the search box and the form mean one filter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import urlencode

from django.core.exceptions import BadRequest
from django.http import QueryDict

from dspyserve.tracing.query_language import MAX_LENGTH, filter_of_terms, unparse
from dspyserve.tracing.query_terms import BadValue, Term, TermError, UnreadableSearch, read_terms
from dspyserve.tracing.search import TraceFilter

DEFAULT_WINDOW: Final = "7d"
"""Without a window, every page of a rare search would read the whole table."""

SEARCH: Final = "q"

EQUAL: Final = {
    "program": "program",
    "version": "version",
    "status": "status",
    "transport": "transport",
    "model": "model",
    "environment": "env",
    "error_type": "error",
    "session": "session",
    "batch": "batch",
    "user": "user",
    "api_key": "key",
    "tag": "tag",
    "window": "time",
    "since": "since",
    "until": "until",
}
"""Parameters of the address that take one value, and the key of the search language that each stands for."""

RANGES: Final = {
    f"{measure}_{end}": (measure, operator)
    for measure in ("duration", "first_token", "tokens", "cost")
    for end, operator in (("min", ">="), ("max", "<="))
}
"""Parameters that limit a number."""

TRUTHS: Final = {
    "has_errors": {"true": Term("has", "error"), "false": Term("has", "error", is_negated=True)},
    "has_feedback": {"true": Term("has", "feedback"), "false": Term("has", "feedback", is_negated=True)},
    "reviewed": {"true": Term("is", "reviewed"), "false": Term("is", "unreviewed")},
}
"""Parameters that say whether something is so."""


class UnreadableFilter(BadRequest):
    """The address asks for something that is not understood; where nobody says what, Django answers 400."""

    def __init__(self, errors: tuple[TermError, ...]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{error.term}: {error.message}" for error in errors))


def filter_of(query: QueryDict) -> TraceFilter:
    """The filter of the address with this query string: of the search `q`, and of each other parameter beside it.

    Where neither a time nor anything by its id is asked for, it is about the last seven days.

    Raises:
        UnreadableFilter: some of it is not understood.
    """
    text = query.get(SEARCH, "")
    if len(text) > MAX_LENGTH:
        raise UnreadableFilter((BadValue(text[:20] + "…", f"> {MAX_LENGTH}"),))
    try:
        wanted = filter_of_terms(_terms(text, query))
    except UnreadableSearch as error:
        raise UnreadableFilter(error.errors) from None
    return replace(wanted, window=DEFAULT_WINDOW) if _has_default_window(wanted) else wanted


def said_of(wanted: TraceFilter) -> TraceFilter:
    """`wanted` without the window that it has where nothing is said of time."""
    unsaid = replace(wanted, window=None)
    return unsaid if wanted.window == DEFAULT_WINDOW and _has_default_window(unsaid) else wanted


def text_of(wanted: TraceFilter) -> str:
    """The search that asks for `wanted`, without what needs no saying."""
    return unparse(said_of(wanted))


def query_of(wanted: TraceFilter) -> str:
    """The query string of the list that shows `wanted`, empty where that is the list as such."""
    text = text_of(wanted)
    return urlencode({SEARCH: text}) if text else ""


def _has_default_window(wanted: TraceFilter) -> bool:
    says_when = (wanted.window, wanted.since, wanted.until) != (None, None, None)
    return not says_when and not wanted.names_something


def _terms(text: str, query: QueryDict) -> Iterator[Term]:
    yield from read_terms(text)
    given = {name: value.strip() for name, value in query.items() if isinstance(value, str) and value.strip()}
    for name, value in given.items():
        if name in EQUAL:
            yield Term(EQUAL[name], value, "=" if name == "model" else ":")
        elif name in RANGES:
            measure, operator = RANGES[name]
            yield Term(measure, value, operator)
        elif value in TRUTHS.get(name, ()):
            yield TRUTHS[name][value]
    if "text" in given:
        yield Term("", given["text"])
    if "meta_name" in given or "meta_value" in given:
        yield Term("meta", given.get("meta_value", ""), "=", given.get("meta_name", ""))
    yield from _feedback(given)


def _feedback(given: dict[str, str]) -> Iterator[Term]:
    name, value = given.get("feedback_name", ""), given.get("feedback_value", "")
    operator = given.get("feedback_operator", "=") if value else ""
    if name or value:
        yield Term("feedback", value, operator, name)
