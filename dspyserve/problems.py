"""Errors as RFC 9457 problems: the one shape in which every door tells a client what went wrong."""

from __future__ import annotations

from typing import Any, Final

from dspyserve.errors import InvalidInput, ProgramError, RequestError

MEDIA_TYPE: Final = "application/problem+json"


def problem(error: RequestError) -> dict[str, Any]:
    """The members of RFC 9457 and ours (`code`, `trace_id`, `trace_stored`, `errors`, `retry_after`) for `error`."""
    document: dict[str, Any] = {
        "type": f"urn:dspyserve:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "trace_id": error.trace_id,
    }
    if error.trace_stored is not None:
        document["trace_stored"] = error.trace_stored
    if error.retry_after is not None:
        document["retry_after"] = error.retry_after
    if isinstance(error, InvalidInput):
        document["errors"] = [{"pointer": fault.pointer, "message": fault.message} for fault in error.faults]
    return document


def as_request_error(error: BaseException) -> RequestError:
    """`error` itself where a client may be told of it, else a `ProgramError` that reveals nothing."""
    if isinstance(error, RequestError):
        return error
    hidden = ProgramError("An internal error occurred.")
    hidden.__cause__ = error
    return hidden
