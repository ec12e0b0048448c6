"""The API and its addresses: `path("api/", include("dspyserve.api.urls"))`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import NoReverseMatch, URLPattern, URLResolver, path, reverse
from ninja import NinjaAPI
from ninja.errors import ValidationError

import dspyserve
from dspyserve.api import health, programs, streams, traces
from dspyserve.api.callers import identify
from dspyserve.api.openai import views as openai
from dspyserve.api.openapi import document
from dspyserve.api.responses import finished, json_response, problem_response
from dspyserve.errors import Fault, InvalidInput, MethodNotAllowed, NotFound, RequestError
from dspyserve.problems import as_request_error

logger = logging.getLogger(__name__)

NAMESPACE = "dspyserve-api"

api = NinjaAPI(title="dspyserve", version=dspyserve.__version__, urls_namespace=NAMESPACE)
api.add_router("/programs", programs.router)
api.add_router("/streams", streams.router)
api.add_router("/traces", traces.router)
api.add_router("/health", health.router)
api.add_router("/openai/v1", openai.router)


@api.exception_handler(RequestError)
def _told(request: HttpRequest, error: RequestError | type[RequestError]) -> HttpResponse:
    assert isinstance(error, RequestError)
    return problem_response(error)


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError | type[ValidationError]) -> HttpResponse:
    entries = getattr(error, "errors", [])
    return problem_response(InvalidInput([Fault("/" + "/".join(map(str, e["loc"])), e["msg"]) for e in entries]))


@api.exception_handler(Http404)
def _not_found(request: HttpRequest, error: Http404 | type[Http404]) -> HttpResponse:
    return problem_response(NotFound("There is nothing at this address."))


@api.exception_handler(Exception)
def _unforeseen(request: HttpRequest, error: Exception | type[Exception]) -> HttpResponse:
    logger.error("An API call failed: %s", request.path, exc_info=error if isinstance(error, Exception) else None)
    return problem_response(as_request_error(error if isinstance(error, Exception) else error()))


async def _nothing_here(request: HttpRequest, rest: str = "") -> HttpResponse:
    return problem_response(NotFound("There is nothing at this address."))


_View = Callable[..., Awaitable[HttpResponseBase]]


def _finishing(view: _View) -> Callable[..., Any]:
    """What ninja leaves to Django: 405 as a problem too, and the headers of every answer."""

    @functools.wraps(view)
    async def finish(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = await view(request, *args, **kwargs)
        if response.status_code == 405:
            refused = problem_response(MethodNotAllowed("This address takes other methods."))
            refused["Allow"] = response.get("Allow", "")
            response = refused
        return finished(request, response)

    finish.csrf_exempt = True  # type: ignore[attr-defined]
    return finish


async def _openapi(request: HttpRequest) -> HttpResponse:
    """The API's description; a bad key is told here as anywhere."""
    try:
        return json_response(await document(await identify(request), reverse(f"{NAMESPACE}:api-root")))
    except RequestError as error:
        return problem_response(error)


def _directly(operation: _View, view: _View) -> _View:
    """`view`, ninja's, with a POST put to `operation` without ninja's own response and model of the path."""

    async def call(request: HttpRequest, **path: Any) -> HttpResponseBase:
        if request.method != "POST":
            return await view(request, **path)
        try:
            return await operation(request, **path)
        except Exception as error:  # noqa: BLE001 - as ninja does
            return api.on_exception(request, error)

    return call


_DIRECT: Final = {"programs/<name>": programs.run_program}
"""What is asked for so often that the share of ninja in it counts."""


def _patterns() -> tuple[list[URLPattern | URLResolver], str, str]:
    patterns, app_name, namespace = api.urls
    # Ninja describes views; here, every program has operations and schemas of its own.
    own = [pattern for pattern in patterns if getattr(pattern, "name", None) != "openapi-json"]
    for pattern in own:
        if isinstance(pattern, URLPattern) and pattern.name not in ("api-root", "openapi-view"):
            operation = _DIRECT.get(str(pattern.pattern))
            view = _directly(operation, pattern.callback) if operation else pattern.callback
            pattern.callback = _finishing(view)
    described = path("openapi.json", _finishing(_openapi), name="openapi-json")
    return [described, *own, path("<path:rest>", _finishing(_nothing_here))], app_name, namespace


urlpatterns = [path("", _patterns())]


@cache
def api_path() -> str:
    """Where the API is in this project."""
    try:
        return reverse(f"{NAMESPACE}:api-root")
    except NoReverseMatch:
        return "/api/"
