"""Request bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest

from dspyserve.conf import settings
from dspyserve.encoding import decode
from dspyserve.errors import Fault, InvalidInput, MalformedBody, TooLarge, UnsupportedMediaType
from dspyserve.programs.options import RunOptions, run_options


@dataclass(frozen=True, slots=True)
class RunBody:
    """`{"inputs": {...}, "session_id"?, "tags"?, "metadata"?, "timeout"?}`."""

    inputs: Any
    options: RunOptions


def read_run(request: HttpRequest) -> RunBody:
    """The body of a call to a program.

    Raises:
        UnsupportedMediaType: it is not declared as JSON.
        TooLarge: it is larger than the setting `MAX_BODY`.
        MalformedBody: it is not a JSON object.
        InvalidInput: something beside the inputs is wrong.
    """
    if request.content_type != "application/json":
        raise UnsupportedMediaType("Send JSON, with the header Content-Type: application/json.")
    body = decode(_bytes(request))
    if not isinstance(body, dict):
        raise MalformedBody("The body must be a JSON object.")
    if "inputs" not in body:
        raise InvalidInput([Fault("/inputs", "This field is required.")])
    return RunBody(body["inputs"], run_options({key: value for key, value in body.items() if key != "inputs"}))


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
