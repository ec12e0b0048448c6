"""What the campaign must know beyond the description: loaded by schemathesis through SCHEMATHESIS_HOOKS."""

from __future__ import annotations

import re
import uuid
from typing import Any

import jsonschema
import schemathesis

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Make good values that are refused rightly into such as are not. Values that violate the description stay.

    A key that came before with another body is no longer good, only the trace's own program tells which corrections
    are, and a deadline of a nanosecond passes.
    """
    if _KEY.fullmatch(str((case.headers or {}).get("Idempotency-Key", ""))):
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
    if isinstance(case.body, dict) and isinstance(case.body.get("correction"), dict):
        case.body["correction"] = {}
    if isinstance(case.body, dict) and _is_deadline(case.body.get("timeout")):
        case.body["timeout"] = max(case.body["timeout"], 60)


def _is_deadline(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leave out batches of which only items violate the description: these are answered with problems of their own."""
    if not case.path.endswith("/batch") or not isinstance(case.body, dict):
        return True
    items = case.body.get("inputs")
    if not isinstance(items, list) or not 0 < len(items) <= 100:
        return True
    document = case.operation.schema.raw_schema
    body = document["paths"][case.path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    batch = document["components"]["schemas"][body["$ref"].rsplit("/", 1)[-1]]
    schema = {**batch["properties"]["inputs"], "components": document["components"]}
    return jsonschema.Draft202012Validator(schema).is_valid(items)
