"""The operations on streams that were begun."""

from __future__ import annotations

from typing import Any, Final

from dspyserve.api.openapi.components import STRING, TRACE_ID, frame
from dspyserve.api.openapi.operations import PROBLEMS, Operations, answer
from dspyserve.api.streams import LAST_EVENT_ID, RESUME_TOKEN

_PROBLEMS: Final = tuple(sorted({*PROBLEMS, 404}))
_TRACE: Final = {
    "name": "trace_id",
    "in": "path",
    "required": True,
    "description": "Of the execution, as `X-Trace-Id` and every event tell it.",
    "schema": TRACE_ID,
    "example": "4bf92f3577b34da6a3ce929d0e0e4736",
}


def add_streams(operations: Operations) -> None:
    """Add them all."""
    token = _header(RESUME_TOKEN, STRING, "The `resume_token` of the first event, for anonymous callers.")
    number = {"type": "string", "pattern": "^[0-9]{0,9}$"}
    last = _header(LAST_EVENT_ID, number, "The last event that is known: those that follow it are sent.")
    path: dict[str, Any] = {"is_open": True, "parameters": [_TRACE, token]}
    added = operations.add(
        "get", "/streams/{trace_id}", "resumeStream", "streams", "Read a stream again", ok={},
        problems=tuple(sorted({*_PROBLEMS, 400})), **path | {"parameters": [_TRACE, token, last]},
    )  # fmt: skip
    data = {"type": "string", "contentMediaType": "application/json"}
    event = frame(data, "One server-sent event, as those of the program's own stream.")
    added["responses"]["200"] = answer("The events that follow", "text/event-stream", event, "X-Trace-Id")
    added["responses"]["204"] = {"description": "The stream is over, and nothing follows that event"}
    added = operations.add(
        "delete", "/streams/{trace_id}", "cancelStream", "streams", "Stop a streamed execution", ok={},
        problems=_PROBLEMS, **path,
    )  # fmt: skip
    del added["responses"]["200"]
    added["responses"]["202"] = {"description": "It stops, and its stream will tell so"}


def _header(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": schema}
