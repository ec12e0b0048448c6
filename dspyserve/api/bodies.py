"""Request bodies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest

from dspyserve.conf import settings
from dspyserve.encoding import decode
from dspyserve.errors import Fault, InvalidInput, MalformedBody, TooLarge, UnsupportedMediaType
from dspyserve.programs.options import NAMES, STREAM_NAMES, RunOptions, run_options


@dataclass(frozen=True, slots=True)
class RunBody:
    """`{"inputs": {...}, "session_id"?, "tags"?, "metadata"?, "timeout"?}`."""

    inputs: Any
    options: RunOptions


def read_object(request: HttpRequest) -> dict[str, Any]:
    """The body, a JSON object.

    Raises:
        UnsupportedMediaType: it is not declared as JSON.
        TooLarge: it is larger than the setting `MAX_BODY`.
        MalformedBody: it is not a JSON object.
    """
    if request.content_type != "application/json":
        raise UnsupportedMediaType("Send JSON, with the header Content-Type: application/json.")
    body = decode(_bytes(request))
    if not isinstance(body, dict):
        raise MalformedBody("The body must be a JSON object.")
    return body


def read_run(request: HttpRequest) -> RunBody:
    """The body of a call to a program; raises as `read_object` does, and also:

    Raises:
        InvalidInput: something beside the inputs is wrong.
    """
    return _read_run(request, NAMES)


def read_stream(request: HttpRequest) -> RunBody:
    """`read_run`, with what may be said of streams alone."""
    return _read_run(request, STREAM_NAMES)


def read_batch(request: HttpRequest) -> RunBody:
    """The body of a batch, whose `inputs` are a list; raises as `read_run` does, and where there are too many items."""
    body = read_run(request)
    limit = settings().batch_size
    if not isinstance(body.inputs, list) or not 0 < len(body.inputs) <= limit:
        raise InvalidInput([Fault("/inputs", f"A list of 1 to {limit} objects of input fields is needed.")])
    return body


def _read_run(request: HttpRequest, names: Sequence[str]) -> RunBody:
    body = read_object(request)
    if "inputs" not in body:
        raise InvalidInput([Fault("/inputs", "This field is required.")])
    given = {key: value for key, value in body.items() if key != "inputs"}
    return RunBody(body["inputs"], run_options(given, names=names))


def too_large() -> TooLarge:
    """What is said of a body above the limit."""
    return TooLarge(f"The body is larger than {settings().max_body} bytes.")


def _bytes(request: HttpRequest) -> bytes:
    try:
        body = request.body
    except RequestDataTooBig:
        raise too_large() from None
    if len(body) > settings().max_body:
        raise too_large()
    return body
