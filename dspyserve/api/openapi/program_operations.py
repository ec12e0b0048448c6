"""The operations of one program: describe, run, stream, batch."""

from __future__ import annotations

from typing import Any, Final

from dspyserve.api.batch import NDJSON
from dspyserve.api.idempotency import HEADER
from dspyserve.api.openapi import components
from dspyserve.api.openapi.components import closed, ref
from dspyserve.api.openapi.examples import example
from dspyserve.api.openapi.names import Schemas
from dspyserve.api.openapi.operations import PROBLEMS, Operations, answer, body
from dspyserve.conf import settings
from dspyserve.models import Program
from dspyserve.programs.options import NAMES, STREAM_NAMES
from dspyserve.programs.served import ServedProgram

_RUN_PROBLEMS: Final = tuple(sorted({*PROBLEMS, 400, 404, 409, 413, 415, 422, 499, 502, 503, 504}))
_STREAM_PROBLEMS: Final = tuple(sorted({*PROBLEMS, 400, 404, 413, 415, 422, 503}))
_TRACEPARENT: Final = {
    "name": "traceparent",
    "in": "header",
    "description": "W3C Trace Context, as 00-(32 hex digits)-(16 hex digits)-01: the trace takes this trace id "
    "where it is free, and is linked to it where not.",
    "schema": {"type": "string"},
}
_IDEMPOTENCY: Final = {
    "name": HEADER,
    "in": "header",
    "description": "A repeated request of the same key and body is answered with the stored answer for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
}


def add_program(operations: Operations, schemas: Schemas, program: ServedProgram, prefix: str) -> None:
    """Add the operations of `program`, whose schemas' names begin with `prefix`."""
    row = program.row
    given = program.schema.input_schema
    inputs = schemas.add(f"{prefix}Inputs", given)
    outputs = schemas.add(f"{prefix}Outputs", program.schema.output_schema)
    run = schemas.add(f"{prefix}Run", closed({"inputs": ref(inputs), **components.options()}, optional=NAMES))
    streamed = closed({"inputs": ref(inputs), **components.stream_options()}, optional=STREAM_NAMES)
    stream = schemas.add(f"{prefix}Stream", streamed)
    result = schemas.add(f"{prefix}Result", components.result(ref(outputs)))
    event = schemas.add(f"{prefix}Event", components.event_union(schemas.add(f"{prefix}RunEnd", _end(outputs))))
    shared: dict[str, Any] = {
        "description": row.description,
        "is_open": row.access == Program.Access.PUBLIC,
    }
    sample = {"inputs": example(given, given.get("$defs", {}))}
    path, title = f"/programs/{row.name}", row.title or row.name

    described = closed(
        {
            **dict.fromkeys(("name", "title", "description"), components.STRING),
            "version": components.nullable(components.INTEGER),
            "input_schema": components.OBJECT,
            "output_schema": components.OBJECT,
        }
    )
    operations.add(
        "get",
        path,
        f"describe{prefix}",
        "programs",
        f"Describe {title}",
        ok=described,
        problems=(*PROBLEMS, 404),
        **shared,
    )
    added = operations.add(
        "post",
        path,
        f"run{prefix}",
        "programs",
        f"Run {title}",
        ok={},
        problems=_RUN_PROBLEMS,
        parameters=[_IDEMPOTENCY, _TRACEPARENT],
        requestBody=body(ref(run), example=sample),
        **shared,
    )
    added["responses"]["200"] = answer(
        "The outputs", "application/json", ref(result), "X-Trace-Id", "Idempotent-Replayed"
    )
    _add_stream(operations, path, prefix, title, stream, event, sample, shared)
    _add_batch(operations, schemas, path, prefix, title, inputs, outputs, sample, shared)


def _add_stream(
    operations: Operations, path: str, prefix: str, title: str, stream: str, event: str, sample: Any, shared: Any
) -> None:
    added = operations.add(
        "post",
        f"{path}/stream",
        f"stream{prefix}",
        "programs",
        f"Stream {title}",
        ok={},
        problems=_STREAM_PROBLEMS,
        parameters=[_TRACEPARENT],
        requestBody=body(ref(stream), example=sample),
        **shared,
    )
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": ref(event)}
    frame = components.frame(
        data,
        f"One server-sent event; many come. Its data is JSON, as in the schema {event}. The last one is "
        "run_end, run_error or run_cancelled.",
    )
    added["responses"]["200"] = answer("The events", "text/event-stream", frame, "X-Trace-Id")


def _add_batch(
    operations: Operations,
    schemas: Schemas,
    path: str,
    prefix: str,
    title: str,
    inputs: str,
    outputs: str,
    sample: Any,
    shared: Any,
) -> None:
    items = {"type": "array", "items": ref(inputs), "minItems": 1, "maxItems": settings().batch_size}
    batch = schemas.add(f"{prefix}Batch", closed({"inputs": items, **components.options()}, optional=NAMES))
    good = schemas.add(f"{prefix}BatchResult", components.result(ref(outputs), **components.INDEX))
    item = schemas.add(f"{prefix}BatchItem", {"oneOf": [ref(good), ref("BatchProblem")]})
    results = closed({"batch_id": components.TRACE_ID, "results": {"type": "array", "items": ref(item)}})
    answered = schemas.add(f"{prefix}BatchResults", results)
    added = operations.add(
        "post",
        f"{path}/batch",
        f"batch{prefix}",
        "programs",
        f"Run {title} with many inputs",
        ok={},
        problems=_RUN_PROBLEMS,
        parameters=[_IDEMPOTENCY, _TRACEPARENT],
        requestBody=body(ref(batch), example={"inputs": [sample["inputs"]]}),
        **shared,
    )
    response = answer(
        "A result or a problem for every item", "application/json", ref(answered), "X-Batch-Id", "Idempotent-Replayed"
    )
    lines = {
        "type": "string",
        "description": f"With `Accept: {NDJSON}`: a line for each item when it is there, as in the schema {item}.",
        "contentMediaType": NDJSON,
        "x-line-schema": ref(item)["$ref"],
    }
    response["content"][NDJSON] = {"schema": lines}
    added["responses"]["200"] = response


def _end(outputs: str) -> dict[str, Any]:
    return components.run_end(ref(outputs))
