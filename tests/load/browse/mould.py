"""The traces that all others are copies of: unlike each other as those of a busy deployment, with real texts."""

from __future__ import annotations

import datetime
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from django.contrib.auth.models import User

from dspyserve.models import Program, Span, SpanPayload, Trace

START: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
PROGRAMS: Final = ("qa", "extract", "agent", "perspectives", *(f"shop-{number}" for number in range(8)))
MODELS: Final = ("openai/gpt-5-mini", "openai/gpt-5", "anthropic/claude-sonnet-5")
ERRORS: Final = {"failed": ("LMRateLimitError", "AdapterParseError", "ValueError"), "timed_out": ("RunTimeout",)}
_TEXT: Final = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were all her she there would their we him been has when who will no more if out so said what up its about "
    "kettle tea customer order refund invoice delivery warranty question answer sky light water agent model reason"
)
WORDS: Final = _TEXT.split()
NEEDLE: Final = "needle"
"""A word that one in a thousand traces begins with."""

STEPS: Final = (
    ("run", "run", None, 0.0, 1.0),
    ("module", "ChainOfThought", 0, 0.01, 0.98),
    ("lm", "", 1, 0.02, 0.5),
    ("tool", "search", 0, 0.53, 0.1),
    ("module", "Predict", 0, 0.64, 0.35),
    ("lm", "", 4, 0.65, 0.33),
)
"""Kind, name, the number of the parent, start and length as shares of the trace."""


@dataclass(slots=True)
class Mould:
    """Rows, and for every span the number of its trace, its start in milliseconds, and the key of its parent."""

    traces: list[Trace] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    payloads: list[SpanPayload] = field(default_factory=list)
    places: list[tuple[int, int, int | None]] = field(default_factory=list)


def mould(count: int) -> Mould:
    """`count` traces, always the same. The keys of spans are numbered from 1."""
    chance = random.Random(11)
    users = [User.objects.get_or_create(username=f"user-{number}")[0] for number in range(20)]
    programs = [Program.objects.get_or_create(name=name, defaults=_SHOP)[0] for name in PROGRAMS]
    made = Mould()
    for number in range(count):
        trace = _trace(chance, number, programs[min(chance.randrange(12), chance.randrange(12))], users)
        made.traces.append(trace)
        _add_spans(made, chance, number, trace)
    return made


_SHOP: Final = {"signature": "question -> answer", "access": "authenticated"}


def _trace(chance: random.Random, number: int, program: Program, users: list[User]) -> Trace:
    status = chance.choices(("succeeded", "failed", "timed_out", "cancelled"), (940, 40, 10, 10))[0]
    error = chance.choice(ERRORS[status]) if status in ERRORS else ""
    duration = round(chance.lognormvariate(7.2, 0.8), 2)
    begin = NEEDLE if number == 0 else chance.choice(WORDS)
    return Trace(
        id=uuid.UUID(int=number + 1),
        program=program,
        program_name=program.name,
        model=chance.choice(MODELS),
        status=status,
        transport=chance.choice(("rest", "rest", "sse", "websocket", "batch")),
        user=chance.choice(users) if chance.random() < 0.5 else None,
        environment=chance.choice(("production", "production", "staging")),
        session_id=f"session-{number // 5}" if chance.random() < 0.4 else "",
        tags=chance.sample(("beta", "shop", "nightly", "eu"), k=chance.randrange(3)),
        metadata={"tenant": chance.choice(("acme", "umbrella", "globex"))} if chance.random() < 0.3 else {},
        started_at=START,
        ended_at=START,
        duration_ms=duration,
        first_token_ms=round(duration * 0.3, 2) if chance.random() < 0.6 else None,
        input_preview=f"{begin} {_text(chance, 160)}"[:200],
        output_preview="" if error else _text(chance, 190),
        error_type=error,
        error_code="program_error" if error else "",
        error_message=_text(chance, 120) if error else "",
        span_count=len(STEPS),
        error_count=bool(error),
        lm_calls=2,
        input_tokens=chance.randrange(300, 6_000),
        output_tokens=chance.randrange(40, 900),
        cost=round(chance.random() ** 3 / 20, 6),
    )


def _add_spans(made: Mould, chance: random.Random, number: int, trace: Trace) -> None:
    first = len(made.spans) + 1
    for sequence, (kind, name, parent, start, length) in enumerate(STEPS, start=1):
        key = first + sequence - 1
        duration = trace.duration_ms or 0.0
        made.places.append((number, int(start * duration), None if parent is None else first + parent))
        made.spans.append(
            Span(
                pk=key,
                trace=trace,
                sequence=sequence,
                span_id=f"{key:016x}",
                kind=kind,
                name=trace.program_name if kind == "run" else name or trace.model,
                started_at=START,
                duration_ms=round(length * duration, 2),
                model=trace.model if kind == "lm" else "",
                status="error" if trace.error_type and sequence == len(STEPS) else "ok",
                error_type=trace.error_type if sequence == len(STEPS) else "",
                **({"input_tokens": 500, "output_tokens": 90, "cost": 0.001} if kind == "lm" else {}),
            )
        )
        made.payloads.append(SpanPayload(span_id=key, **_payload(chance, kind)))


def _payload(chance: random.Random, kind: str) -> dict[str, Any]:
    """About 5 KB a trace in all, most of it the messages of the language model."""
    if kind != "lm":
        return {"inputs": {"question": _text(chance, 250)}, "outputs": {"answer": _text(chance, 250)}}
    asked = f"[[ ## question ## ]]\n{_text(chance, 500)}\n\nRespond with the corresponding output fields."
    messages = [{"role": "system", "content": _text(chance, 700)}, {"role": "user", "content": asked}]
    answer = f"[[ ## answer ## ]]\n{_text(chance, 400)}\n\n[[ ## completed ## ]]"
    return {"messages": messages, "outputs": [answer], "attributes": {"temperature": 0.2}}


def _text(chance: random.Random, length: int) -> str:
    return " ".join(_words(chance, length))


def _words(chance: random.Random, length: int) -> Iterator[str]:
    while length > 0:
        word = chance.choice(WORDS)
        length -= len(word) + 1
        yield word
