"""Many rows for lists and figures, as unlike each other as those of a busy week."""

from __future__ import annotations

import datetime
import random
import uuid
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from dspyserve.models import Feedback, Program, Trace

DAYS = 9
ERRORS = {
    "failed": [
        ("ValueError", "program_error"),
        ("LMAuthError", "lm_error"),
        ("AdapterParseError", "output_unparsable"),
    ],
    "timed_out": [("DeadlinePassed", "timeout")],
    "cancelled": [("Cancelled", "cancelled")],
}
QUESTIONS = (
    "Why is the sky blue?",
    "Ist grüner Tee gesünder?",
    "How long does a kettle last?",
    "Czym jest żółta herbata?",
    "2+2",
)
MODELS = ("openai/gpt-5-mini", "anthropic/claude-sonnet-5", "demo/echo")


def fill(count: int, user: User, api_key: int) -> None:
    """Store `count` traces of the last days, some with feedback. Always the same but for the ids and the time."""
    chance = random.Random(7)
    programs = list(Program.objects.filter(name__in=("qa", "extract", "agent", "echo")).order_by("name"))
    traces = [_trace(chance, chance.choice(programs), user, api_key) for _ in range(count)]
    Trace.objects.bulk_create(traces)
    rated = chance.sample([trace for trace in traces if trace.status == "succeeded"], k=count // 8)
    Feedback.objects.bulk_create(
        Feedback(trace=trace, name="helpful", score=float(chance.random() < 0.8), author="key:1") for trace in rated
    )


def _trace(chance: random.Random, program: Program, user: User, api_key: int) -> Trace:
    status = chance.choices(("succeeded", "failed", "timed_out", "cancelled"), (88, 7, 3, 2))[0]
    started_at = timezone.now() - datetime.timedelta(days=DAYS * chance.random() ** 1.5)
    duration_ms = chance.lognormvariate(6.8, 0.9)
    error_type, error_code = chance.choice(ERRORS[status]) if status != "succeeded" else ("", "")
    return Trace(
        id=uuid.UUID(int=chance.getrandbits(128)),
        program=program,
        program_name=program.name,
        status=status,
        transport=chance.choice(Trace.Transport.values),
        started_at=started_at,
        ended_at=started_at + datetime.timedelta(milliseconds=duration_ms),
        duration_ms=duration_ms,
        first_token_ms=duration_ms * 0.3 if chance.random() < 0.7 else None,
        input_preview=chance.choice(QUESTIONS),
        output_preview="" if error_type else "Because light is scattered, and blue light more than red.",
        error_type=error_type,
        error_code=error_code,
        error_message=f"{error_type} after {duration_ms:.0f} ms" if error_type else "",
        span_count=3,
        error_count=bool(error_type),
        lm_calls=1,
        environment=chance.choice(("production", "staging", "")),
        **_who(chance, user, api_key),
        **_usage(chance),
    )


def _who(chance: random.Random, user: User, api_key: int) -> dict[str, Any]:
    caller = chance.choice(({"user": user}, {"api_key_id": api_key}, {}))
    session = f"session-{chance.randrange(40)}" if chance.random() < 0.4 else ""
    return {
        **caller,
        "session_id": session,
        "tags": chance.sample(("beta", "tea", "shop", "nightly"), k=chance.randrange(3)),
    }


def _usage(chance: random.Random) -> dict[str, Any]:
    model = chance.choice(MODELS)
    tokens = {"input_tokens": chance.randrange(80, 6_000), "output_tokens": chance.randrange(20, 900)}
    cost = None if model == "demo/echo" else (tokens["input_tokens"] + 4 * tokens["output_tokens"]) / 2_000_000
    return {"model": model, "cost": cost, **tokens}
