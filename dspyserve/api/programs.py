"""The operations on programs: list, describe, run, stream, batch."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from ninja import Router

from dspyserve import runs
from dspyserve.access.identity import Identity
from dspyserve.access.permissions import Right, check_may_run, may, visible_programs
from dspyserve.api.batch import answer_batch
from dspyserve.api.bodies import read_run, read_stream
from dspyserve.api.callers import admit, caller, identify
from dspyserve.api.idempotency import once
from dspyserve.api.responses import json_response
from dspyserve.api.sse import sse_response
from dspyserve.models import Program, Trace
from dspyserve.programs.catalogue import catalogue

router = Router()


@router.get("")
async def list_programs(request: HttpRequest) -> HttpResponse:
    """`{"items": [{"name", "title", "description"}]}`."""
    programs = await visible_programs(await admit(request), await catalogue.arows())
    return json_response({"items": [_summary(program) for program in programs]})


@router.get("/{name}")
async def describe_program(request: HttpRequest, name: str) -> HttpResponse:
    """The program with the JSON Schemas of its inputs and outputs."""
    await _authorised(request, name)
    program = await catalogue.aget(name)
    return json_response(
        {
            **_summary(program.row),
            "version": program.version_number,
            "input_schema": program.schema.input_schema,
            "output_schema": program.schema.output_schema,
        }
    )


@router.post("/{name}")
async def run_program(request: HttpRequest, name: str) -> HttpResponse:
    """Run the program and answer with its outputs, when its trace is stored."""
    identity = await _authorised(request, name)
    body = read_run(request)

    async def answer() -> HttpResponse:
        result = await runs.aexecute(
            name,
            body.inputs,
            caller=caller(request, identity, body.options, Trace.Transport.REST),
            timeout=body.options.timeout,
            from_json=True,
        )
        return json_response(result.as_dict(), trace_id=result.trace_id)

    return await once(request, identity, answer)


@router.post("/{name}/batch")
async def batch_program(request: HttpRequest, name: str) -> HttpResponseBase:
    """Run the program once for every item and answer with a result or a problem for each."""
    identity = await identify(request)
    await check_may_run(identity, await catalogue.arow(name))
    return await answer_batch(request, identity, name)


@router.post("/{name}/stream")
async def stream_program(request: HttpRequest, name: str) -> StreamingHttpResponse:
    """Run the program and answer with its events, as they happen, to the one that ends it."""
    identity = await _authorised(request, name)
    body = read_stream(request)
    payloads = await may(identity, Right.VIEW_PAYLOADS)
    stream = await runs.astream(
        name,
        body.inputs,
        caller=caller(request, identity, body.options, Trace.Transport.SSE),
        timeout=body.options.timeout,
        from_json=True,
        on_disconnect=body.options.on_disconnect,
        payloads=payloads,
    )
    return sse_response(stream, payloads=payloads)


async def _authorised(request: HttpRequest, name: str) -> Identity:
    identity = await admit(request)
    await check_may_run(identity, await catalogue.arow(name))
    return identity


def _summary(program: Program) -> dict[str, Any]:
    return {"name": program.name, "title": program.title, "description": program.description}
