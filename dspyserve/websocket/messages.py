"""The messages of the subprotocol `dspyserve.v1`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from dspyserve.conf import settings
from dspyserve.encoding import decode, encode
from dspyserve.errors import MalformedBody, RequestError
from dspyserve.events import Event
from dspyserve.problems import problem

SUBPROTOCOL: Final = "dspyserve.v1"
MAX_ID: Final = 200
_RESUME_KEYS: Final = {"type", "trace_id", "after", "id", "token"}


class CloseCode(IntEnum):
    """Why the server closes a socket. Not 1011 for what is internal: Daphne refuses to send it."""

    MALFORMED = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    NO_SUCH_PROGRAM = 4404
    IDLE = 4408
    DUPLICATE_ID = 4409
    TOO_LARGE = 4413
    TOO_MANY_RUNS = 4429
    INTERNAL = 4500


class ProtocolError(Exception):
    """The client broke the protocol: the socket is closed with `code`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Run:
    """Start an execution, which the client calls `id`."""

    id: str
    inputs: Any
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the execution `id`."""

    id: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Tell no more of the execution `id`, which goes on as it would if the socket closed."""

    id: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Give the events of an execution once more, after the one of number `after`, under the id `id`."""

    id: str
    trace_id: str
    after: int
    token: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a pong."""


Message = Run | Cancel | Leave | Resume | Ping


def read(text: str | None) -> Message:
    """The client's message.

    Raises:
        ProtocolError: it is no text, too large, no JSON, or no message of the protocol.
    """
    if text is None:
        raise ProtocolError(CloseCode.MALFORMED, "Text frames only.")
    if _is_too_large(text):
        raise ProtocolError(CloseCode.TOO_LARGE, f"At most {settings().max_body} bytes.")
    try:
        message = decode(text)
    except MalformedBody:
        raise ProtocolError(CloseCode.MALFORMED, "Not JSON.") from None
    if not isinstance(message, dict):
        raise ProtocolError(CloseCode.MALFORMED, "A JSON object is needed.")
    return _parse(message)


def _parse(message: dict[str, Any]) -> Message:
    match message:
        case {"type": "ping"}:
            return Ping()
        case {"type": "cancel", "id": str(run_id)} if _is_id(run_id):
            return Cancel(run_id)
        case {"type": "leave", "id": str(run_id)} if _is_id(run_id):
            return Leave(run_id)
        case {"type": "run", "id": str(run_id), "inputs": inputs} if _is_id(run_id):
            options = message.get("options") or {}
            if not isinstance(options, dict) or message.keys() - {"type", "id", "inputs", "options"}:
                raise ProtocolError(CloseCode.MALFORMED, "A run takes id, inputs and options.")
            return Run(run_id, inputs, options)
        case {"type": "resume", "trace_id": str(trace_id)}:
            return _resume(message, trace_id)
        case _:
            raise ProtocolError(CloseCode.MALFORMED, "Not a message of dspyserve.v1.")


def _resume(message: dict[str, Any], trace_id: str) -> Resume:
    run_id, after, token = message.get("id", trace_id), message.get("after", 0), message.get("token", "")
    # JSON may hold lone surrogates, which are not printable, and which nothing can be looked up by.
    is_good = isinstance(run_id, str) and _is_id(run_id) and isinstance(token, str) and (trace_id + token).isprintable()
    if not is_good or type(after) is not int or after < 0 or message.keys() - _RESUME_KEYS:
        raise ProtocolError(CloseCode.MALFORMED, "A resume takes trace_id, after, id and token.")
    return Resume(run_id, trace_id, after, token)


def _is_too_large(text: str) -> bool:
    limit = settings().max_body
    # A character takes at most four bytes: most texts need not be encoded to be counted.
    return len(text) > limit or (4 * len(text) > limit and len(text.encode()) > limit)


def _is_id(value: str) -> bool:
    return 0 < len(value) <= MAX_ID and value.isprintable()


def event(run_id: str, event: Event, *, payloads: bool) -> str:
    """An event of the execution `run_id`."""
    return encode({"type": "event", "id": run_id, "event": event.as_dict(payloads=payloads)}).decode()


def error(error: RequestError, run_id: str | None = None) -> str:
    """What was wrong with a message, or with the run that it asked for."""
    identity = {} if run_id is None else {"id": run_id}
    return encode({"type": "error", **identity, "problem": problem(error)}).decode()


PONG: Final = '{"type":"pong"}'
HEARTBEAT: Final = '{"type":"heartbeat"}'
