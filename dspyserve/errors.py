"""Every error that dspyserve raises.

    DspyserveError
    ├── RegistrationError          a developer's mistake in a `dspy_programs.py`
    ├── ConfigurationError         a mistake in a stored row (LM, program, version) or in the settings
    │   └── StateMismatch          a state that may be one of other fields
    └── RequestError               everything below reaches a client as a problem
        ├── MalformedBody          400
        ├── InvalidHeader          400
        ├── Unauthenticated        401
        ├── Forbidden              403
        ├── NotFound               404
        │   ├── ProgramNotFound    404
        │   ├── TraceNotFound      404
        │   └── StreamNotFound     404
        ├── MethodNotAllowed       405
        ├── RequestInFlight        409
        ├── TooLarge               413
        ├── UnsupportedMediaType   415
        ├── InvalidInput           422, with one entry per fault
        ├── KeyReused              422
        ├── RateLimited            429
        ├── Throttled              429
        ├── RunCancelled           499
        ├── ProgramError           500
        ├── ExecutionLost          500
        ├── LMError                502
        │   └── OutputUnparsable   502
        ├── Overloaded             503
        └── RunTimeout             504

Each class carries a stable `code`, an HTTP `status` and a `title`. `detail` is always written by us: the text of a
provider or of a model never goes in, because it goes out to clients. What really happened is the `__cause__`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class DspyserveError(Exception):
    """The base of every error here. Do not raise it directly."""


class RegistrationError(DspyserveError):
    """A program cannot be registered or built as its developer wrote it."""


class ConfigurationError(DspyserveError):
    """A stored language model, program or version, or a setting, cannot be used as it is."""


class StateMismatch(ConfigurationError):
    """A state can be loaded, and yet seems to be one of other fields. Who is sure may take it all the same."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an input: an RFC 6901 `pointer` into the request body and a `message`."""

    pointer: str
    message: str


class RequestError(DspyserveError):
    """The base of all errors that a client is told. Do not raise it directly.

    `detail` is a sentence for the client, `retry_after` seconds to wait before another try, `trace_id` the execution's
    id where there was one, and `trace_stored` whether its trace is committed.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Error"

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        self.detail = detail or self.title
        self.retry_after = retry_after
        self.trace_id: str | None = None
        self.trace_stored: bool | None = None
        super().__init__(self.detail)


class MalformedBody(RequestError):
    """The body is not what the protocol asks for."""

    code, status, title = "malformed_body", 400, "Malformed body"


class InvalidHeader(RequestError):
    """A header is not what the protocol asks for."""

    code, status, title = "invalid_header", 400, "Invalid header"


class Unauthenticated(RequestError):
    """Credentials are needed and none came, or those that came are not good."""

    code, status, title = "unauthenticated", 401, "Authentication required"


class Forbidden(RequestError):
    """The caller is known and may not do this."""

    code, status, title = "forbidden", 403, "Forbidden"


class NotFound(RequestError):
    """There is nothing at this address."""

    code, status, title = "not_found", 404, "Not found"


class ProgramNotFound(NotFound):
    """No enabled program has this name."""

    code, title = "program_not_found", "No such program"


class TraceNotFound(NotFound):
    """No trace of this id is stored, or none that the caller may see."""

    code, title = "trace_not_found", "No such trace"


class StreamNotFound(NotFound):
    """No stream of this id is kept, or none that is the caller's."""

    code, title = "stream_not_found", "No such stream"


class MethodNotAllowed(RequestError):
    """The address exists, for another method."""

    code, status, title = "method_not_allowed", 405, "Method not allowed"


class RequestInFlight(RequestError):
    """A request with the same `Idempotency-Key` is under way."""

    code, status, title = "request_in_flight", 409, "The same request is under way"


class TooLarge(RequestError):
    """A body, a message or a prompt exceeds a limit."""

    code, status, title = "too_large", 413, "Too large"


class UnsupportedMediaType(RequestError):
    """The body is declared as something other than JSON."""

    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class InvalidInput(RequestError):
    """The inputs do not fit the program's schema; `faults` tells where."""

    code, status, title = "invalid_input", 422, "Invalid input"

    def __init__(self, faults: Sequence[Fault], detail: str = "") -> None:
        self.faults = tuple(faults)
        super().__init__(detail or "; ".join(f"{fault.pointer}: {fault.message}" for fault in self.faults[:3]))


class KeyReused(RequestError):
    """The `Idempotency-Key` came before, with another request."""

    code, status, title = "idempotency_key_reused", 422, "Idempotency key reused"


class RateLimited(RequestError):
    """The language model's provider refused for now."""

    code, status, title = "rate_limited", 429, "Rate limited"


class Throttled(RequestError):
    """The caller has made as many requests as it may, for now."""

    code, status, title = "throttled", 429, "Too many requests"


class RunCancelled(RequestError):
    """The execution was stopped; `reason` is `client` or `shutdown`."""

    code, status, title = "cancelled", 499, "Execution cancelled"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The execution was cancelled ({reason}).")


class ProgramError(RequestError):
    """The program raised, or cannot be run as it is configured."""

    code, status, title = "program_error", 500, "The program failed"


class ExecutionLost(RequestError):
    """The process that executed the program is gone, and with it the execution."""

    code, status, title = "execution_lost", 500, "The execution was lost"


class LMError(RequestError):
    """The language model's provider failed."""

    code, status, title = "lm_error", 502, "The language model failed"


class OutputUnparsable(LMError):
    """The language model answered something that does not fit the program's signature."""

    code, title = "output_unparsable", "The language model's answer could not be read"


class Overloaded(RequestError):
    """Every slot and every place in the queue is taken."""

    code, status, title = "overloaded", 503, "Overloaded"


class RunTimeout(RequestError):
    """The execution's deadline passed, or the provider's."""

    code, status, title = "timeout", 504, "Timed out"
