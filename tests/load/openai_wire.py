"""OpenAI's chat completions on the wire: the request read, the answers and errors written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tests.load.directives import Directives

SECRET = "provider-secret-text"
"""Part of every error message: what a provider says must not reach the clients of the project."""

_CREATED = 1767225600  # 2026-01-01T00:00:00Z
_ERROR_TYPES = {
    401: ("authentication_error", "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("permission_error", None),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


class RequestError(ValueError):
    """A request body that is not a chat completion request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A request as it was received."""

    model: str
    api_key: str
    """The bearer token of the Authorization header; empty when there is none."""
    temperature: float | None
    stream: bool
    messages: list[dict[str, Any]]
    choices: int = 1
    """``n``: how many answers are wanted."""
    include_usage: bool = False
    """Whether a stream ends with the usage."""
    response_format: Mapping[str, Any] | None = None

    @property
    def system(self) -> str:
        """The text of the system message; empty when there is none."""
        first = self.messages[0]
        return text_of(first) if first.get("role") in ("system", "developer") else ""

    @property
    def last_user(self) -> str:
        """The text of the last user message; empty when there is none."""
        return next((text_of(each) for each in reversed(self.messages) if each.get("role") == "user"), "")


def read_request(body: bytes, authorization: str) -> ChatRequest:
    """The request of a body; RequestError when it is none."""
    try:
        data = orjson.loads(body)
        options = data.get("stream_options") or {}
        request = ChatRequest(
            model=data["model"],
            api_key=authorization.removeprefix("Bearer "),
            temperature=data.get("temperature"),
            stream=bool(data.get("stream")),
            messages=data["messages"],
            choices=data.get("n") or 1,
            include_usage=bool(options.get("include_usage")),
            response_format=data.get("response_format"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise RequestError("the body is not a chat completion request") from exc
    if not request.messages:
        raise RequestError("messages is empty")
    return request


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, without its images and files."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def completion(
    identity: str, request: ChatRequest, directives: Directives, answers: list[str], usage: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of an answer in one piece."""
    message = {"role": "assistant", "refusal": None}
    if directives.reasoning_content is not None:
        message["reasoning_content"] = directives.reasoning_content
    choices = [
        {
            "index": index,
            "message": {**message, "content": text},
            "finish_reason": directives.finish,
            "logprobs": None,
        }
        for index, text in enumerate(answers)
    ]
    return {**_head(identity, request, "chat.completion"), "choices": choices, "usage": usage}


def chunk(
    identity: str,
    request: ChatRequest,
    index: int | None = None,
    delta: Mapping[str, Any] | None = None,
    *,
    finish: str | None = None,
    usage: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One event of a stream; without an index it carries no choice, as the one with the usage."""
    choices = [] if index is None else [{"index": index, "delta": delta or {}, "finish_reason": finish}]
    body = {**_head(identity, request, "chat.completion.chunk"), "choices": choices}
    return {**body, "usage": usage} if request.include_usage else body


def usage_of(request: ChatRequest, directives: Directives, answers: list[str]) -> dict[str, Any]:
    """Tokens counted as words."""
    prompt = sum(len(text_of(message).split()) for message in request.messages)
    completion = sum(len(text.split()) for text in answers)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if directives.cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": directives.cached}
    return usage


def error_body(status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """The body of an error answer; the code that goes with the status unless another is given."""
    default = ("invalid_request_error", None) if status < 500 else ("server_error", None)
    kind, usual = _ERROR_TYPES.get(status, default)
    return {"error": {"message": f"{SECRET}: {message}", "type": kind, "param": None, "code": code or usual}}


def models() -> dict[str, Any]:
    """The body of ``GET /v1/models``."""
    names = ("gpt-4o-mini", "gpt-4o")
    data = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "tests"} for name in names]
    return {"object": "list", "data": data}


def _head(identity: str, request: ChatRequest, kind: str) -> dict[str, Any]:
    return {"id": identity, "object": kind, "created": _CREATED, "model": f"{request.model}-2026-01-01"}
