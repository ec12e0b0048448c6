"""Examples to train and to evaluate with: what went into a program, and what should come out.

rows = [json.loads(line) for line in open("examples.jsonl")]
trainset = [dspy.Example(**row["fields"]).with_inputs(*row["inputs"]) for row in rows]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet

from dspyserve.encoding import encode
from dspyserve.models import Feedback, Trace
from dspyserve.tracing.export.reading import TraceRecord
from dspyserve.tracing.sanitize import is_cut, names_media


def succeeded(traces: QuerySet[Trace]) -> QuerySet[Trace]:
    """Those that can be examples: what failed has no outputs."""
    return traces.filter(status=Trace.Status.SUCCEEDED)


def line(record: TraceRecord) -> bytes:
    """The example that a trace is, nothing where its fields were not kept, or not whole.

    `inputs` are the names of the input fields. What reviewers corrected stands in place of what the program said.
    """
    run = record.run
    if run is None or not isinstance(run.inputs, Mapping) or not isinstance(run.outputs, Mapping):
        return b""
    correction = _correction(record)
    fields = {**run.inputs, **run.outputs, **correction}
    if names_media(fields) or (record.trace.truncation and is_cut(fields)):
        return b""
    about = {"trace_id": record.trace.id.hex, "program": record.trace.program_name}
    scores = {each.name: each.score for each in record.feedback if each.score is not None and _is_of_run(each, record)}
    example = {"inputs": list(run.inputs), "fields": fields, **about, "scores": scores, "corrected": sorted(correction)}
    return encode(example) + b"\n"


def _correction(record: TraceRecord) -> dict[str, Any]:
    """All corrections of the run; of two of one field the later one holds."""
    fields: dict[str, Any] = {}
    for opinion in sorted(record.feedback, key=lambda each: each.updated_at):
        if isinstance(opinion.correction, Mapping) and _is_of_run(opinion, record):
            fields |= opinion.correction
    return fields


def _is_of_run(opinion: Feedback, record: TraceRecord) -> bool:
    return opinion.span_id in ("", *(span.span_id for span in record.spans if span.kind == "run"))
