"""One row for each trace, for spreadsheets: CSV with commas, in UTF-8."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

from dspyserve.encoding import encode
from dspyserve.tracing.documents import trace_document
from dspyserve.tracing.export.reading import TraceRecord

COLUMNS: Final = (
    "id",
    "program",
    "version",
    "status",
    "started_at",
    "duration_ms",
    "first_token_ms",
    "model",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cost",
    "lm_calls",
    "span_count",
    "error_count",
    "error_type",
    "error_code",
    "transport",
    "environment",
    "user_id",
    "api_key_id",
    "session_id",
    "request_id",
    "batch_id",
    "tags",
    "metadata",
)
"""Of the trace; what is not known is empty."""
TEXTS: Final = ("inputs", "outputs", "error_message")
"""Whole, not only their beginnings; empty for those who may not see them."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""How a text begins that a spreadsheet would execute (OWASP, CSV injection)."""


def head() -> bytes:
    """The names of the columns."""
    return _row([*COLUMNS, "feedback", *TEXTS])


def row(record: TraceRecord) -> bytes:
    """The row of a trace. No text in it is a formula."""
    trace, run = trace_document(record.trace, payloads=record.payloads), record.run
    texts = {
        "inputs": _json(run.inputs if run else None),
        "outputs": _json(run.outputs if run else None),
        "error_message": trace.get("error_message", ""),
    }
    feedback = "; ".join(f"{each.name}={_verdict(each.score, each.label)}" for each in record.feedback)
    return _row([*(trace[name] for name in COLUMNS), feedback, *(texts[name] for name in TEXTS)])


def _row(values: Iterable[Any]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow([_cell(value) for value in values])
    return out.getvalue().encode()


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else value.isoformat() if hasattr(value, "isoformat") else _json(value)
    # An apostrophe makes it a text, and spreadsheets do not show it.
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _json(value: Any) -> str:
    return "" if value in (None, [], {}) else encode(value).decode()


def _verdict(score: float | None, label: str) -> str:
    return label if score is None else f"{score:g}"
