"""The search language: what it understands, what it says of the rest, and that it reads what it writes."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspyserve.models import Trace
from dspyserve.tracing.query_language import MAX_TERMS, parse, unparse
from dspyserve.tracing.query_terms import BadValue, Repeated, UnclosedQuote, UnknownKey, UnreadableSearch
from dspyserve.tracing.search import MEASURES, Limit, Opinion, TraceFilter

TEXT = st.text(min_size=1, max_size=20).filter(lambda text: "\x00" not in text)
TRICKY = st.sampled_from(
    ['"', "\\", "-x", "a b", "a:b", "tag:x", "=5", ">1", "http://x", "has:error", " ", "ü\u00a0x", "1"]
)
WORD = TEXT | TRICKY
WHOLE = st.integers(0, 10**9).map(float)
AMOUNT = WHOLE | st.floats(0, 1e9, allow_subnormal=False)
MOMENT = st.datetimes(
    datetime.datetime(1980, 1, 2), datetime.datetime(2200, 1, 1), timezones=st.just(datetime.UTC), allow_imaginary=False
)
OPERATOR = st.sampled_from([">=", "<=", ">", "<", "="])
SCORE = st.floats(-1e6, 1e6)


def limits() -> st.SearchStrategy[Limit]:
    """Counts are whole, amounts are not."""
    amounts = st.builds(Limit, st.sampled_from(["duration", "first_token", "cost"]), OPERATOR, AMOUNT)
    counts = st.sampled_from(sorted(MEASURES.keys() - {"duration", "first_token", "cost"}))
    return amounts | st.builds(Limit, counts, OPERATOR, WHOLE)


def opinions() -> st.SearchStrategy[Opinion]:
    scored = st.builds(Opinion, WORD, OPERATOR, SCORE)
    return st.builds(Opinion, WORD) | scored | st.builds(Opinion, WORD, st.just("="), WORD)


def several(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=2, unique=True).map(tuple)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


NEGATABLE: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("program", "model", "model_prefix", "environment", "error_type", "session_id"), WORD),
    **dict.fromkeys(("batch_id", "user", "api_key"), WORD),
    "version": st.integers(0, 999_999_999),
    "status": st.sampled_from(Trace.Status.values),
    "transport": st.sampled_from(Trace.Transport.values),
}
LISTS: dict[str, st.SearchStrategy[Any]] = {
    "tags": WORD,
    "metadata": st.tuples(WORD, WORD),
    "opinions": opinions(),
    "limits": limits(),
    "texts": WORD,
}
EXCLUDED = st.one_of(
    *[st.builds(TraceFilter, **{name: value}) for name, value in NEGATABLE.items()],
    *[st.builds(TraceFilter, **{name: st.tuples(value)}) for name, value in LISTS.items()],
)
FILTERS = st.builds(
    TraceFilter,
    **{name: maybe(value) for name, value in NEGATABLE.items() if name != "model_prefix"},
    **{name: several(value) for name, value in LISTS.items()},
    **{name: maybe(st.booleans()) for name in ("has_errors", "has_feedback", "is_reviewed")},
    window=maybe(st.sampled_from(["any", "1h", "90m", "30d"])),
    since=maybe(MOMENT),
    until=maybe(MOMENT),
    excluded=several(EXCLUDED),
)


@settings(max_examples=400, deadline=None)
@given(FILTERS)
def test_reads_what_it_writes(wanted: TraceFilter) -> None:
    text = unparse(wanted)
    if len(text) <= 2000:
        assert parse(text) == wanted, text


@settings(max_examples=400, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(WORD | st.sampled_from(["cost>", "-", "meta.", "feedback:", ":"]), max_size=6).map("".join)
)
def test_whatever_is_written_is_understood_or_refused_by_name(text: str) -> None:
    try:
        wanted = parse(text)
    except UnreadableSearch as error:
        named = [fault.term for fault in error.errors]
    else:
        named = ["nothing"]
        assert parse(unparse(wanted)) == wanted
    assert all(named)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("program:qa status:failed", {"program": "qa", "status": "failed"}),
        ("PROGRAM:qa version:v3", {"program": "qa", "version": 3}),
        ("cost>0.01", {"limits": (Limit("cost", ">", 0.01),)}),
        ("cost>=$2", {"limits": (Limit("cost", ">=", 2.0),)}),
        ("duration>2s", {"limits": (Limit("duration", ">", 2000.0),)}),
        ("duration:<1.5m", {"limits": (Limit("duration", "<", 90_000.0),)}),
        ("first_token<=500ms", {"limits": (Limit("first_token", "<=", 500.0),)}),
        ("tokens>=1.5k", {"limits": (Limit("tokens", ">=", 1500.0),)}),
        ("spans:3", {"limits": (Limit("spans", "=", 3.0),)}),
        ("tag:beta tag:x tag:beta", {"tags": ("beta", "x")}),
        ("user:ann session:abc key:shop", {"user": "ann", "session_id": "abc", "api_key": "shop"}),
        ("model:openai/gpt", {"model_prefix": "openai/gpt"}),
        ("model=openai/gpt-5", {"model": "openai/gpt-5"}),
        ("env:prod", {"environment": "prod"}),
        ("environment:prod error:ValueError", {"environment": "prod", "error_type": "ValueError"}),
        ("feedback:helpful", {"opinions": (Opinion("helpful"),)}),
        ("feedback:helpful<0.5", {"opinions": (Opinion("helpful", "<", 0.5),)}),
        ("feedback:tone=rude", {"opinions": (Opinion("tone", "=", "rude"),)}),
        ('feedback:"my tone"="1"', {"opinions": (Opinion("my tone", "=", "1"),)}),
        ("has:error has:feedback", {"has_errors": True, "has_feedback": True}),
        ("-has:error is:unreviewed", {"has_errors": False, "is_reviewed": False}),
        ("-is:unreviewed", {"is_reviewed": True}),
        ("meta.tenant=acme", {"metadata": (("tenant", "acme"),)}),
        ('meta."a b":"c d"', {"metadata": (("a b", "c d"),)}),
        ("-tag:beta", {"excluded": (TraceFilter(tags=("beta",)),)}),
        ("-status:succeeded", {"excluded": (TraceFilter(status="succeeded"),)}),
        ('refund "free text"', {"texts": ("refund", "free text")}),
        ('"say \\"hi\\" \\\\"', {"texts": ('say "hi" \\',)}),
        ("12:30 https://x.org/?a=b v1.2 - e.g.", {"texts": ("12:30", "https://x.org/?a=b", "v1.2", "-", "e.g.")}),
        ("time:90m", {"window": "90m"}),
        ("since:2026-01-31", {"since": datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC)}),
        ("until:2026-01-31T12:00:00+02:00", {"until": datetime.datetime(2026, 1, 31, 10, tzinfo=datetime.UTC)}),
    ],
)
def test_understands(text: str, values: dict[str, Any]) -> None:
    assert parse(text) == TraceFilter(**values)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("statsu:failed", UnknownKey, "Did you mean status?"),
        ("colours:red", UnknownKey, "Quote it"),
        ("status:good", BadValue, "none of running, succeeded"),
        ("status:faild", BadValue, "Did you mean failed?"),
        ("status>failed", BadValue, "compared with : alone"),
        ("program:", BadValue, "A value is needed"),
        ("cost>abc", BadValue, "“abc” is no number such as 0.01"),
        ("cost>-1", BadValue, "is no number"),
        ("cost>1e99", BadValue, "too large"),
        ("duration>2", BadValue, "needs a unit: ms, s"),
        ("duration>2 kg", BadValue, "needs a unit"),
        ("duration>2kg", BadValue, "“kg” is no unit here"),
        ("tokens>0.5", BadValue, "no whole number"),
        ("version:x", BadValue, "no version"),
        ("time:soon", BadValue, "no time such as 90m"),
        ("since:2026-02-31", BadValue, "no time such as 2026-01-31"),
        ("since:0001-01-01T00:00:00+10:00", BadValue, "no time"),
        ("-time:1h", BadValue, "cannot stand after a minus"),
        ("feedback:x<bad", BadValue, "“bad” is no number"),
        ("feedback:x<inf", BadValue, "no number"),
        ("feedback:", BadValue, "A name is needed"),
        ("meta:x", BadValue, "A name is needed"),
        ("is:nice", BadValue, "none of reviewed, unreviewed"),
        ("status:failed status:running", Repeated, "both cannot be"),
        ('a "b c', UnclosedQuote, "has no other"),
        ("a\x00b", BadValue, "characters that no trace has"),
        ("x" * 501, BadValue, "At most 500"),
        ("x " * 1001, BadValue, "At most 2000"),
        ("x1 " * MAX_TERMS + "x", BadValue, f"At most {MAX_TERMS}"),
    ],
)
def test_says_what_is_wrong(text: str, kind: type, said: str) -> None:
    with pytest.raises(UnreadableSearch) as caught:
        parse(text)
    (error,) = caught.value.errors
    assert (type(error), said in error.message) == (kind, True), (error, error.message)


def test_says_all_that_is_wrong_at_once() -> None:
    with pytest.raises(UnreadableSearch) as caught:
        parse('statsu:x program:qa cost>y "free')
    assert [error.term for error in caught.value.errors] == ["statsu:x", "cost>y", '"free']
    assert caught.value.errors[0].closest == "status"  # type: ignore[attr-defined]


def test_units_are_the_shortest_that_say_it() -> None:
    wanted = parse("duration>2000ms duration<0.5s tokens>=1500 cost<1.50")
    assert unparse(wanted) == "duration>2s duration<500ms tokens>=1.5k cost<1.5"
