"""Answers: JSON, problems, and the headers that every answer carries."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import uuid_utils
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from dspyserve.access.throttling import Quota
from dspyserve.encoding import encode
from dspyserve.errors import RequestError
from dspyserve.problems import MEDIA_TYPE, problem

_REQUEST_ID: Final = re.compile(r"[\w.:@/+=-]{1,200}", re.ASCII)


def json_response(data: Any, *, trace_id: str | None = None, status: int = 200) -> HttpResponse:
    """`data` as JSON."""
    response = HttpResponse(encode(data), content_type="application/json", status=status)
    if trace_id is not None:
        response["X-Trace-Id"] = trace_id
    return response


def problem_response(error: RequestError) -> HttpResponse:
    """`error` as RFC 9457 asks, with the headers that belong to its status."""
    response = HttpResponse(encode(problem(error)), content_type=MEDIA_TYPE, status=error.status)
    if error.trace_id is not None:
        response["X-Trace-Id"] = error.trace_id
    if error.retry_after is not None:
        response["Retry-After"] = str(math.ceil(error.retry_after))
    if error.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    return response


def request_id(request: HttpRequest) -> str:
    """The caller's `X-Request-ID` where it is harmless, else one of ours; the same throughout a request."""
    known: str | None = getattr(request, "_dspyserve_request_id", None)
    if known is None:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        known = given if given and _REQUEST_ID.fullmatch(given) else uuid_utils.uuid4().hex
        request._dspyserve_request_id = known  # type: ignore[attr-defined]
    return known


def set_quota(request: HttpRequest, quota: Quota | None) -> None:
    """Remember what the caller has left, for the headers of the answer."""
    request._dspyserve_quota = quota  # type: ignore[attr-defined]


def finished(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """`response` with the headers of every answer."""
    response["X-Request-ID"] = request_id(request)
    quota: Quota | None = getattr(request, "_dspyserve_quota", None)
    for name, value in quota.headers().items() if quota else ():
        response[name] = value
    response.setdefault("Cache-Control", "no-store")
    return response
