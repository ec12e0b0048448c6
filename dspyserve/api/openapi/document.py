"""The whole document."""

from __future__ import annotations

import inspect
import logging
from functools import cache
from typing import Any, Final

from django.conf import settings as django_settings

import dspyserve
from dspyserve import errors
from dspyserve.access.identity import Identity
from dspyserve.access.permissions import visible_programs
from dspyserve.api.openapi import components
from dspyserve.api.openapi.names import Schemas, prefixes
from dspyserve.api.openapi.operations import Operations
from dspyserve.api.openapi.program_operations import add_program
from dspyserve.api.openapi.stream_operations import add_streams
from dspyserve.api.openapi.trace_operations import add_traces
from dspyserve.errors import ProgramError, ProgramNotFound, RequestError
from dspyserve.programs.catalogue import catalogue

logger = logging.getLogger(__name__)

_DESCRIPTION: Final = (
    "Every program has its own operations, with the schemas of its inputs and outputs. Errors are problems as RFC 9457 "
    "says, told apart by `code`. Only the programs that you may run are here: sign in, or send your API key."
)


def _security() -> dict[str, Any]:
    session = {
        "type": "apiKey",
        "in": "cookie",
        "name": django_settings.SESSION_COOKIE_NAME,
        "description": "A signed-in user's session. Requests that change something also need X-CSRFToken.",
    }
    return {"bearer": {"type": "http", "scheme": "bearer", "description": "An API key."}, "session": session}


async def document(identity: Identity, root: str) -> dict[str, Any]:
    """The description of the API, whose address is `root`, for the caller `identity`."""
    shared = {"Problem": components.problem(), "BatchProblem": components.problem(**components.INDEX)}
    schemas = Schemas({**shared, **components.events(), **components.traces()})
    operations = Operations(root)
    _add_common(operations)
    rows = await visible_programs(identity, await catalogue.arows())
    names = prefixes(row.name for row in rows)
    for row in sorted(rows, key=lambda row: row.name):
        try:
            program = await catalogue.aget(row.name)
        except (ProgramError, ProgramNotFound):
            # The log tells why it cannot be served; the others can.
            continue
        add_program(operations, schemas, program, names[row.name])
    add_streams(operations)
    add_traces(operations)
    return {
        "openapi": "3.1.0",
        "info": {"title": "dspyserve", "version": dspyserve.__version__, "description": _DESCRIPTION},
        "paths": operations.paths,
        "components": {
            "schemas": schemas.by_name,
            "responses": _problem_responses(),
            "headers": _HEADERS,
            "securitySchemes": _security(),
        },
        "tags": [{"name": "programs"}, {"name": "streams"}, {"name": "traces"}, {"name": "health"}],
    }


_HEADERS: Final = {
    "X-Request-ID": {"description": "The one that you sent, or one of ours.", "schema": {"type": "string"}},
    "X-Trace-Id": {"description": "The trace of the execution.", "schema": components.TRACE_ID},
    "X-Batch-Id": {"description": "What the traces of the batch share.", "schema": components.TRACE_ID},
    "Retry-After": {"description": "Seconds to wait before another try.", "schema": {"type": "integer", "minimum": 0}},
    "RateLimit": {
        "description": "What is left of your quota, where there is one.",
        "schema": {"type": "string"},
    },
    "Idempotent-Replayed": {
        "description": "`true` where the answer is that of an earlier request.",
        "schema": {"type": "string"},
    },
}


@cache
def _problem_responses() -> dict[str, Any]:
    """One for each status, with an example for each code that has it."""
    responses: dict[str, Any] = {}
    for error in _all_errors():
        response = responses.setdefault(
            f"Problem{error.status}",
            {
                "description": error.title,
                "headers": {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}},
                "content": {"application/problem+json": {"schema": components.ref("Problem"), "examples": {}}},
            },
        )
        if error.status in (409, 429, 503):
            response["headers"]["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
        value = {
            "type": f"urn:dspyserve:problem:{error.code}",
            "title": error.title,
            "status": error.status,
            "detail": error.title,
            "code": error.code,
            "trace_id": None,
        }
        response["content"]["application/problem+json"]["examples"][error.code] = {"value": value}
    return responses


def _all_errors() -> list[type[RequestError]]:
    found = {
        error.code: error
        for _, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, RequestError) and error is not RequestError
    }
    return sorted(found.values(), key=lambda error: (error.status, error.code))


def _add_common(operations: Operations) -> None:
    summary = components.closed(dict.fromkeys(("name", "title", "description"), components.STRING))
    page = components.closed({"items": {"type": "array", "items": summary}})
    operations.add(
        "get", "/programs", "listPrograms", "programs", "List the programs that you may run", ok=page, is_open=True
    )
    alive = components.closed({"status": {"const": "ok"}})
    operations.add(
        "get", "/health/live", "live", "health", "Is the process alive?", ok=alive, problems=(405,), is_open=True
    )
    ready = components.closed(
        {
            "status": {"enum": ["ok", "unavailable"]},
            "checks": {"type": "object", "additionalProperties": components.BOOLEAN},
            "running": components.INTEGER,
        }
    )
    added = operations.add(
        "get", "/health/ready", "ready", "health", "Can the process serve?", ok=ready, problems=(405,), is_open=True
    )
    added["responses"]["503"] = {"description": "Not now", "content": {"application/json": {"schema": ready}}}
