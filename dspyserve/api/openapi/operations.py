"""The operations of a document, and what all of them have."""

from __future__ import annotations

from typing import Any, Final

PROBLEMS: Final = (401, 403, 405, 429, 500)
"""Statuses that any operation may answer with a problem."""

_KNOWN: Final[list[dict[str, list[str]]]] = [{"bearer": []}, {"session": []}]


class Operations:
    """Paths with their operations."""

    def __init__(self, root: str) -> None:
        """`root` is the address of the API, such as `/api`."""
        self.paths: dict[str, Any] = {}
        self._root = root.rstrip("/")

    def add(
        self,
        method: str,
        path: str,
        operation_id: str,
        tag: str,
        summary: str,
        *,
        ok: dict[str, Any],
        problems: tuple[int, ...] = PROBLEMS,
        is_open: bool = False,
        **more: Any,
    ) -> dict[str, Any]:
        """Add one operation, which answers `ok` as JSON or a problem of one of these statuses; returns it."""
        operation = {
            "operationId": operation_id,
            "tags": [tag],
            "summary": summary,
            "security": [{}, *_KNOWN] if is_open else _KNOWN,
            **more,
            "responses": {
                "200": answer("OK", "application/json", ok),
                **{str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in problems},
            },
        }
        self.paths.setdefault(f"{self._root}{path}", {})[method] = operation
        return operation


def answer(description: str, media_type: str, schema: dict[str, Any], *headers: str, **more: Any) -> dict[str, Any]:
    """A successful response."""
    names = ("X-Request-ID", "RateLimit", *headers)
    return {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {media_type: {"schema": schema, **more}},
    }


def body(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A JSON body, which is needed."""
    return {"required": True, "content": {"application/json": {"schema": schema, **more}}}
