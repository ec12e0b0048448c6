"""`traceparent`: the trace takes the caller's id where it is free, and is linked to it where it is not."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from django.core.cache import cache

from dspyserve import runs
from dspyserve.events import Caller
from dspyserve.models import Trace
from dspyserve.tracing import claims, store
from dspyserve.tracing.rows import TraceRows
from tests.api.conftest import API

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    cache.clear()


def run(api: API, parent: str) -> Trace:
    response = api.post("programs/echo", {"inputs": {"question": "q"}}, traceparent=parent)
    assert response.status_code == 200
    return Trace.objects.get(pk=response["X-Trace-Id"])


def test_the_first_request_has_the_callers_id_and_hangs_below_its_span(anonymous: API) -> None:
    trace = run(anonymous, PARENT)
    assert (trace.id.hex, trace.linked_trace_id) == (TRACE, "")
    assert trace.spans.get(kind="run").parent_id == SPAN


def test_a_second_request_has_its_own_id_and_is_linked(anonymous: API) -> None:
    traces = [run(anonymous, PARENT) for _ in range(3)]
    assert len({trace.id for trace in traces}) == 3
    assert [trace.linked_trace_id for trace in traces] == ["", TRACE, TRACE]
    assert {trace.spans.get(kind="run").parent_id for trace in traces} == {SPAN}


def test_an_id_that_is_stored_is_taken_when_nothing_remembers_the_claim(anonymous: API) -> None:
    run(anonymous, PARENT)
    cache.clear()
    assert run(anonymous, PARENT).linked_trace_id == TRACE


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_what_is_no_traceparent_is_passed_over(anonymous: API, parent: str) -> None:
    trace = run(anonymous, parent)
    assert (trace.id.hex != TRACE, trace.linked_trace_id) == (True, "")
    assert trace.spans.get(kind="run").parent_id == ""


def test_the_items_of_a_batch_are_all_linked(anonymous: API) -> None:
    body = {"inputs": [{"question": "a"}, {"question": "b"}]}
    assert anonymous.post("programs/echo/batch", body, traceparent=PARENT).status_code == 200
    assert list(Trace.objects.values_list("linked_trace_id", flat=True)) == [TRACE, TRACE]


def test_python_callers_may_bring_an_id_too(language_model: Any) -> None:
    results = [runs.execute("threaded", {"question": "q"}, caller=Caller(trace_id=TRACE)) for _ in range(2)]
    assert results[0].trace_id == TRACE
    assert Trace.objects.get(pk=results[1].trace_id).linked_trace_id == TRACE


async def test_of_requests_at_once_one_has_the_id(language_model: Any) -> None:
    calls = [runs.aexecute("echo", {"question": "@@delay=0.1@@"}, caller=Caller(trace_id=TRACE)) for _ in range(4)]
    ids = [result.trace_id for result in await asyncio.gather(*calls)]
    assert (len(set(ids)), ids.count(TRACE)) == (4, 1)
    links = {trace.id.hex: trace.linked_trace_id async for trace in Trace.objects.all()}
    assert links == {trace_id: "" if trace_id == TRACE else TRACE for trace_id in ids}


def test_without_the_cache_no_id_is_taken_over(anonymous: API, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError

    monkeypatch.setattr(claims.cache, "add", away)
    assert run(anonymous, PARENT).linked_trace_id == TRACE


def test_processes_that_share_no_cache_lose_no_trace(anonymous: API, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both believe that the id is free, as they would who claimed it at the same moment.
    monkeypatch.setattr("dspyserve.runs.calls.claim", lambda trace_id: True)
    for _ in range(2):
        anonymous.post("programs/echo", {"inputs": {"question": "q"}}, traceparent=PARENT)
    first, second = Trace.objects.order_by("started_at")
    assert first.id.hex == TRACE
    assert (second.id.hex != TRACE, second.linked_trace_id) == (True, TRACE)
    assert second.spans.count() == first.spans.count()


def test_a_trace_that_is_stored_twice_is_stored_once(anonymous: API) -> None:
    trace = run(anonymous, PARENT)
    columns = {field.attname: getattr(trace, field.attname) for field in Trace._meta.concrete_fields}
    columns |= {"id": TRACE, "started_at": trace.started_at.isoformat()}
    store.insert_new([TraceRows(trace=columns)])
    assert [found.id for found in Trace.objects.all()] == [uuid.UUID(TRACE)]
