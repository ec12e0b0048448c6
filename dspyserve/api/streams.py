"""The operations on streams: read one again after the connection broke, and stop its execution."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from ninja import Router

from dspyserve import runs
from dspyserve.access.identity import Identity
from dspyserve.access.permissions import Right, may
from dspyserve.access.resuming import owner_name
from dspyserve.api.callers import admit
from dspyserve.api.sse import sse_response
from dspyserve.errors import InvalidHeader

router = Router()

LAST_EVENT_ID: Final = "Last-Event-ID"
RESUME_TOKEN: Final = "X-Resume-Token"  # noqa: S105 - the name of a header


@router.get("/{trace_id}")
async def resume_stream(request: HttpRequest, trace_id: str) -> HttpResponseBase:
    """The events that follow `Last-Event-ID`, or all; 204 where nothing follows, as `EventSource` understands it."""
    identity = await admit(request)
    after = _last_event_id(request)
    stream = await runs.aresume(trace_id, owner=_owner(request, identity, trace_id), after=after)
    if stream.is_at_end:
        stream.close()
        return HttpResponse(status=204)
    return sse_response(stream, payloads=await may(identity, Right.VIEW_PAYLOADS))


@router.delete("/{trace_id}")
async def cancel_stream(request: HttpRequest, trace_id: str) -> HttpResponse:
    """Stop the execution. Whoever reads the stream is told so by its terminal event."""
    identity = await admit(request)
    await runs.acancel(trace_id, owner=_owner(request, identity, trace_id))
    return HttpResponse(status=202)


def _owner(request: HttpRequest, identity: Identity, trace_id: str) -> str:
    return owner_name(identity, trace_id, request.headers.get(RESUME_TOKEN, ""))


def _last_event_id(request: HttpRequest) -> int:
    text = request.headers.get(LAST_EVENT_ID, "") or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InvalidHeader(f"{LAST_EVENT_ID} must be the number of an event.")
    return int(text)
