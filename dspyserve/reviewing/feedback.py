"""Feedback on traces: what the API and the admin store, and how it is checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction

from dspyserve.access.identity import Identity
from dspyserve.errors import Fault, InvalidInput, ProgramError, ProgramNotFound, TraceNotFound
from dspyserve.models import Feedback, Span, Trace
from dspyserve.programs.catalogue import catalogue
from dspyserve.tracing.sanitize import Sanitizer

OPINIONS: Final = ("score", "label", "comment", "correction")
LENGTHS: Final = {"name": 100, "span_id": 16, "label": 200, "comment": 20_000}
"""The most characters of each text."""


def give_feedback(
    identity: Identity, trace: Trace, body: Mapping[str, Any], *, earlier: Feedback | None = None
) -> tuple[Feedback, bool]:
    """Store the opinion in `body`, in place of one that this caller gave under its name; whether there was none.

    `earlier` is an opinion of this caller that is edited: it takes the name and the span of `body`.

    Raises:
        InvalidInput: something of it is wrong; the correction does not fit the program's outputs.
        TraceNotFound: the trace has no such span.
    """
    given = {name: value for name, value in body.items() if value is not None}
    if faults := list(_faults(given)):
        raise InvalidInput(faults)
    if "correction" in given and (earlier is None or given["correction"] != earlier.correction):
        _check_correction(trace, given["correction"])
    return _store(identity, trace, given, earlier)


async def agive_feedback(identity: Identity, trace: Trace, body: Mapping[str, Any]) -> tuple[Feedback, bool]:
    """`give_feedback` without stopping the event loop."""
    return await sync_to_async(give_feedback)(identity, trace, body)


def withdraw_feedback(identity: Identity, trace: Trace, feedback_id: int) -> Feedback:
    """Delete an opinion that this caller gave on the trace, and return what it was.

    Raises:
        TraceNotFound: the caller gave no such feedback on it.
    """
    found = Feedback.objects.filter(trace=trace, pk=feedback_id, author=identity.name).first()
    if found is None:
        raise TraceNotFound("You gave no such feedback on this trace.")
    Feedback.objects.filter(pk=found.pk).delete()
    return found


def _check_correction(trace: Trace, correction: Any) -> None:
    try:
        program = catalogue.get(trace.program_name)
    except (ProgramNotFound, ProgramError):
        fault = Fault("/correction", "The program is not served any more, so that nothing tells what would be right.")
        raise InvalidInput([fault]) from None
    program.schema.check_outputs(correction, "/correction")


def _faults(given: Mapping[str, Any]) -> Iterator[Fault]:
    for name in sorted(given.keys() - {"name", "span_id", *OPINIONS}):
        yield Fault(f"/{name.encode('utf-8', 'replace').decode()}", "Not a part of feedback.")
    if "name" not in given:
        yield Fault("/name", "This field is required.")
    for name, limit in LENGTHS.items():
        value = given.get(name, "-")
        if not isinstance(value, str) or not 0 < len(value) <= limit or not _is_clean(value):
            yield Fault(f"/{name}", f"A text of 1 to {limit} characters is needed.")
    score = given.get("score", 0)
    if isinstance(score, bool) or not isinstance(score, int | float) or not _is_finite(score):
        yield Fault("/score", "A number is needed.")
    if not given.keys() & set(OPINIONS):
        yield Fault("", f"One of {', '.join(OPINIONS)} is needed.")


def _is_clean(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False


def _store(
    identity: Identity, trace: Trace, given: Mapping[str, Any], earlier: Feedback | None
) -> tuple[Feedback, bool]:
    place = {"span_id": given.get("span_id", ""), "name": given["name"]}
    if place["span_id"] and not Span.objects.filter(trace=trace, span_id=place["span_id"]).exists():
        raise TraceNotFound(f"The trace has no span {place['span_id']!r}.")
    clean = Sanitizer().clean
    score = given.get("score")
    with transaction.atomic():
        if earlier is not None and (earlier.span_id, earlier.name) != (place["span_id"], place["name"]):
            _move(identity, trace, earlier, place)
        return Feedback.objects.update_or_create(
            trace=trace,
            author=identity.name,
            **place,
            defaults={
                "score": None if score is None else float(score),
                "label": clean(given.get("label", "")),
                "comment": clean(given.get("comment", "")),
                "correction": clean(given.get("correction")),
                "user_id": identity.user_id,
                "api_key_id": identity.key_id,
            },
        )


def _move(identity: Identity, trace: Trace, earlier: Feedback, place: Mapping[str, str]) -> None:
    try:
        with transaction.atomic():
            Feedback.objects.filter(trace=trace, pk=earlier.pk, author=identity.name).update(**place)
    except IntegrityError:
        raise InvalidInput([Fault("/name", "You gave feedback under this name before.")]) from None
