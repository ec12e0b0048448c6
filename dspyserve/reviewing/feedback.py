"""Feedback on traces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from asgiref.sync import sync_to_async

from dspyserve.access.identity import Identity
from dspyserve.errors import Fault, InvalidInput, ProgramError, ProgramNotFound, TraceNotFound
from dspyserve.models import Feedback, Span, Trace
from dspyserve.programs.catalogue import catalogue
from dspyserve.tracing.sanitize import Sanitizer

OPINIONS: Final = ("score", "label", "comment", "correction")
_LENGTHS: Final = {"name": 100, "span_id": 16, "label": 200, "comment": 20_000}


async def give_feedback(identity: Identity, trace: Trace, body: Mapping[str, Any]) -> tuple[Feedback, bool]:
    """Store the opinion in `body`, in place of an earlier one of this caller; whether there was none.

    Raises:
        InvalidInput: something of it is wrong; the correction does not fit the program's outputs.
        TraceNotFound: the trace has no such span.
    """
    given = {name: value for name, value in body.items() if value is not None}
    if faults := list(_faults(given)):
        raise InvalidInput(faults)
    if "correction" in given:
        await _check_correction(trace, given["correction"])
    return await sync_to_async(_store)(identity, trace, given)


async def _check_correction(trace: Trace, correction: Any) -> None:
    try:
        program = await catalogue.aget(trace.program_name)
    except (ProgramNotFound, ProgramError):
        fault = Fault("/correction", "The program is not served any more, so that nothing tells what would be right.")
        raise InvalidInput([fault]) from None
    program.schema.check_outputs(correction, "/correction")


def _faults(given: Mapping[str, Any]) -> Iterator[Fault]:
    for name in sorted(given.keys() - {"name", "span_id", *OPINIONS}):
        yield Fault(f"/{name.encode('utf-8', 'replace').decode()}", "Not a part of feedback.")
    if "name" not in given:
        yield Fault("/name", "This field is required.")
    for name, limit in _LENGTHS.items():
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


def _store(identity: Identity, trace: Trace, given: Mapping[str, Any]) -> tuple[Feedback, bool]:
    span_id = given.get("span_id", "")
    if span_id and not Span.objects.filter(trace=trace, span_id=span_id).exists():
        raise TraceNotFound(f"The trace has no span {span_id!r}.")
    clean = Sanitizer().clean
    score = given.get("score")
    return Feedback.objects.update_or_create(
        trace=trace,
        span_id=span_id,
        name=given["name"],
        author=identity.name,
        defaults={
            "score": None if score is None else float(score),
            "label": clean(given.get("label", "")),
            "comment": clean(given.get("comment", "")),
            "correction": clean(given.get("correction")),
            "user_id": identity.user_id,
            "api_key_id": identity.key_id,
        },
    )
