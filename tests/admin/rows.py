"""Traces and spans as rows, made by hand: whatever a database may hold."""

from __future__ import annotations

import datetime
import json
import uuid
from typing import Any

from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.utils import timezone

from dspyserve.models import Span, SpanPayload, Trace

LIST = "/admin/dspyserve/trace/"


def make_trace(**values: Any) -> Trace:
    """A trace of this minute, that took a second."""
    defaults = {"program_name": "qa", "status": "succeeded", "transport": "rest", "duration_ms": 1000.0}
    return Trace.objects.create(id=uuid.uuid4(), started_at=timezone.now(), **{**defaults, **values})


def new_span(
    trace: Trace, number: int, parent: int | None = None, at: float = 0, took: float | None = 100, **values: Any
) -> Span:
    """A span that is not stored: `at` and `took` in milliseconds; `parent` is the number of another."""
    defaults = {"kind": "tool", "name": f"step {number}", "status": "ok"}
    return Span(
        trace=trace,
        sequence=number,
        span_id=span_id(number),
        parent_id="" if parent is None else span_id(parent),
        started_at=trace.started_at + datetime.timedelta(milliseconds=at),
        duration_ms=took,
        **{**defaults, **values},
    )


def span_id(number: int) -> str:
    """That of the span of this number."""
    return f"{number:016x}"


def make_span(trace: Trace, number: int = 1, payload: dict[str, Any] | None = None, **values: Any) -> Span:
    """A stored span with its payload."""
    span = new_span(trace, number, **values)
    span.save()
    if payload is not None:
        SpanPayload.objects.create(span=span, **payload)
    return span


def write_json(span: Span, column: str, text: str) -> None:
    """JSON as text, past Django, whose encoder gives up where databases do not."""
    json_type = "jsonb" if connection.vendor == "postgresql" else "text"
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE dspyserve_spanpayload SET {column} = CAST(%s AS {json_type}) WHERE span_id = %s", [text, span.pk]
        )


def nested(depth: int) -> str:
    """JSON of that many arrays within one another."""
    return "[" * depth + json.dumps("bottom") + "]" * depth


def staff(*codenames: str) -> Client:
    """A signed-in member of the staff with these permissions."""
    user = User.objects.create_user(f"staff-{uuid.uuid4().hex[:8]}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def page_url(trace: Trace, query: str = "") -> str:
    """The page of `trace`."""
    return f"{LIST}{trace.pk}/change/{query}"


def span_url(span: Span, more: str = "") -> str:
    """Where `span` is loaded from."""
    return f"{LIST}{span.trace_id}/span/{span.span_id}/{more}"
