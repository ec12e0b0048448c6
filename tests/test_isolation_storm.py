"""Five hundred executions at once, through every door, on different models, keys, temperatures and adapters.

Every answer belongs to its request, every trace holds its own calls, and no history grows.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import dspy
import httpx
import pytest
from dspy.clients.base_lm import GLOBAL_HISTORY
from dspy.dsp.utils.settings import main_thread_config
from httpx_sse import aconnect_sse
from websockets.asyncio.client import connect

from dspyserve import runs
from dspyserve.errors import RequestError
from dspyserve.events import TERMINAL
from dspyserve.models import LanguageModel, Program, SpanPayload, Trace
from dspyserve.programs.catalogue import catalogue
from tests import dspy_programs
from tests.event_streams import asent_events
from tests.load.openai_server import OpenAIServer
from tests.server import Server

COUNT = 500
DOORS = ("rest", "sse", "websocket", "aexecute", "astream", "execute")
ADAPTERS = ("chat", "json", "xml", "chat", "json", "xml", "chat")
WORDING = {"chat": "[[ ## completed ## ]]", "json": "JSON object", "xml": "XML tags"}
"""What each adapter's prompts say and no other's."""
LM_CALLS = {"echo": 1, "threaded": 2, "parallel": 6, "pooled": 4, "pinned": 2, "gathered": 4, "stateful": 1}
PROGRAMS = tuple(LM_CALLS)
MARKER = re.compile(r"marker-\d+-")
FAIL_EVERY = 11


@dataclass
class Call:
    """One execution: what was asked, of which program, through which door, and what came of it."""

    number: int
    program: str = field(init=False)
    door: str = field(init=False)
    outputs: dict[str, Any] | None = None
    trace_id: str = ""
    code: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.program = PROGRAMS[self.number % len(PROGRAMS)]
        self.door = DOORS[self.number % len(DOORS)]

    @property
    def fails(self) -> bool:
        """Whether the provider was told to fail it. `parallel` survives failures of its parts, so it is spared."""
        return self.number % FAIL_EVERY == 0 and self.program != "parallel"

    @property
    def marker(self) -> str:
        """What no other call's question holds."""
        return f"marker-{self.number}-"

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs."""
        return {"question": f"{self.marker} @@delay=0.05@@ {'@@status=500@@' if self.fails else ''}"}

    def take(self, body: dict[str, Any]) -> None:
        """An answer, or the data of a terminal event."""
        problem = body if "code" in body else body.get("problem")
        self.outputs, self.code = body.get("outputs"), problem["code"] if problem else ""
        self.trace_id = body.get("trace_id") or (problem or {}).get("trace_id")

    def take_events(self, events: list[dict[str, Any]]) -> None:
        """A whole stream."""
        self.events = events
        self.take(events[-1])


@pytest.fixture
def pinned_lm(provider: OpenAIServer) -> Iterator[dspy.LM]:
    lm = dspy.LM(dspy_programs.PINNED_MODEL, api_base=provider.url, api_key="key-pin", cache=False, num_retries=0)
    dspy_programs.Pinned.lm = lm
    yield lm
    dspy_programs.Pinned.lm = None


@pytest.fixture
def models(language_model: LanguageModel, pinned_lm: dspy.LM) -> dict[str, LanguageModel]:
    """A language model for each program, no two alike."""
    found = {}
    for number, name in enumerate(PROGRAMS):
        letter = "ABCDE"[number % 5]
        found[name] = LanguageModel.objects.create(
            name=f"lm-{name}",
            model=f"openai/model-{name}",
            api_base=language_model.api_base,
            api_key_env=f"TEST_{letter}_API_KEY",
            parameters={"temperature": round(0.1 * (number + 1), 1)},
            timeout=60.0,
        )
        Program.objects.filter(name=name).update(
            language_model=found[name], adapter=ADAPTERS[number], max_queue=COUNT, timeout=100
        )
    catalogue.forget()
    return found


@pytest.mark.slow
def test_every_execution_is_its_own(
    models: dict[str, LanguageModel],
    pinned_lm: dspy.LM,
    provider: OpenAIServer,
    start_server: Callable[..., Server],
    settings: Any,
) -> None:
    settings.DSPYSERVE = {**settings.DSPYSERVE, "POOL_QUEUE": COUNT}
    server = start_server(
        DSPYSERVE_TESTS_POOL_QUEUE=str(COUNT),
        DSPYSERVE_TESTS_PINNED=f"{provider.url} key-pin",
    )
    calls = [Call(number) for number in range(COUNT)]
    before = footprint(pinned_lm)
    asyncio.run(storm(calls, server))
    assert footprint(pinned_lm) == before
    assert [failure(call) for call in calls if call.code and not call.fails] == []
    assert {call.code for call in calls if call.fails} == {"lm_error"}
    for call in calls:
        check_answer(call, models[call.program])
        check_stream(call)
    check_traces(calls)


async def storm(calls: list[Call], server: Server) -> None:
    """Make all calls at once, each through its door."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    with ThreadPoolExecutor(24) as threads:
        async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
            doors = {
                "rest": lambda call: by_rest(call, client),
                "sse": lambda call: by_sse(call, client),
                "aexecute": by_aexecute,
                "astream": by_astream,
                "execute": lambda call: asyncio.get_running_loop().run_in_executor(threads, by_execute, call),
            }
            one_by_one = [doors[call.door](call) for call in calls if call.door != "websocket"]
            sockets = [
                by_websocket([call for call in calls if (call.door, call.program) == ("websocket", name)], name, server)
                for name in PROGRAMS
            ]
            await asyncio.gather(*one_by_one, *sockets)


async def by_rest(call: Call, client: httpx.AsyncClient) -> None:
    response = await client.post(f"/api/programs/{call.program}", json={"inputs": call.inputs})
    call.take(response.json())


async def by_sse(call: Call, client: httpx.AsyncClient) -> None:
    address = f"/api/programs/{call.program}/stream"
    async with aconnect_sse(client, "POST", address, json={"inputs": call.inputs}) as source:
        call.take_events([frame.json() async for frame in asent_events(source)])


async def by_websocket(calls: list[Call], program: str, server: Server) -> None:
    """Sixteen at a time on one socket."""
    async with connect(f"{server.websocket_url}/{program}", subprotocols=["dspyserve.v1"], max_size=None) as socket:  # type: ignore[list-item]
        for start in range(0, len(calls), 16):
            own = {str(call.number): call for call in calls[start : start + 16]}
            events: dict[str, list[dict[str, Any]]] = {run_id: [] for run_id in own}
            for run_id, call in own.items():
                await socket.send(json.dumps({"type": "run", "id": run_id, "inputs": call.inputs}))
            running = set(own)
            while running:
                message = json.loads(await socket.recv())
                assert message["type"] == "event", message
                events[message["id"]].append(message["event"])
                if message["event"]["type"] in TERMINAL:
                    running.discard(message["id"])
            for run_id, call in own.items():
                call.take_events(events[run_id])


async def by_aexecute(call: Call) -> None:
    try:
        call.take((await runs.aexecute(call.program, call.inputs)).as_dict())
    except RequestError as error:
        call.code, call.trace_id = error.code, error.trace_id or ""


async def by_astream(call: Call) -> None:
    stream = await runs.astream(call.program, call.inputs)
    call.take_events([event.as_dict() async for event in stream])


def by_execute(call: Call) -> None:
    try:
        call.take(runs.execute(call.program, call.inputs).as_dict())
    except RequestError as error:
        call.code, call.trace_id = error.code, error.trace_id or ""


def failure(call: Call) -> tuple[Any, ...]:
    """What became of a call that should not have failed, as its trace tells it."""
    trace = Trace.objects.filter(id=call.trace_id).first() if call.trace_id else None
    told = (trace.error_type, trace.error_message) if trace else ()
    return call.number, call.program, call.door, call.code, call.trace_id, *told


def check_answer(call: Call, model: LanguageModel) -> None:
    """Every text of the outputs is of this question, and of the language model that it should come from."""
    if call.fails:
        return
    outputs = dict(call.outputs or {})
    if call.program == "stateful":
        # A copy of its own: it has seen one question, and DSPy's trace held nothing.
        assert (outputs.pop("traced"), outputs.pop("seen")) == (1, [call.inputs["question"]])
    texts = [text for value in outputs.values() for text in (value if isinstance(value, list) else [value])]
    assert len(texts) == LM_CALLS[call.program]
    own = outputs.get("own")
    for text in texts:
        assert set(MARKER.findall(text)) == {call.marker}, (call, text)
        if text is own:
            assert "model=gpt-4.1-mini " in text
            assert "key=key-pin " in text
        else:
            key = model.api_key_env.removeprefix("TEST_").removesuffix("_API_KEY").lower()
            assert f"model=model-{call.program} " in text
            assert f"key=key-{key} " in text
            assert f"temperature={model.parameters['temperature']} " in text


def check_stream(call: Call) -> None:
    """A stream is whole, and its deltas add up to texts of the outputs."""
    if call.door not in ("sse", "websocket", "astream"):
        return
    types = [event["type"] for event in call.events]
    covered = [seq for event in call.events for seq in range(event.get("first_seq", event["seq"]), event["seq"] + 1)]
    assert covered == list(range(1, len(covered) + 1))
    assert [kind in TERMINAL for kind in types] == [False] * (len(types) - 1) + [True]
    assert {event["trace_id"] for event in call.events} == {call.trace_id}
    if call.fails:
        return
    texts: dict[str, str] = {}
    for event in call.events:
        if event["type"] == "token" and event["field"] in ("answer", "draft"):
            texts[event["span_id"]] = texts.get(event["span_id"], "") + event["delta"]
    outputs = call.outputs or {}
    expected = [
        text
        for name, value in outputs.items()
        if name not in ("seen", "traced")
        for text in (value if isinstance(value, list) else [value])
    ]
    assert sorted(texts.values()) == sorted(expected)


def check_traces(calls: list[Call]) -> None:
    """Every trace is there, and holds the spans and messages of its own calls, each in its place."""
    traces = {trace.id.hex: trace for trace in Trace.objects.prefetch_related("spans")}
    payloads: dict[Any, list[SpanPayload]] = {}
    for payload in SpanPayload.objects.select_related("span"):
        payloads.setdefault(payload.span.trace_id.hex, []).append(payload)
    assert set(traces) == {call.trace_id for call in calls}
    for call in calls:
        trace = traces[call.trace_id]
        assert trace.program_name == call.program
        assert trace.status == ("failed" if call.fails else "succeeded")
        stored = json.dumps([[p.inputs, p.outputs, p.messages] for p in payloads[call.trace_id]])
        assert set(MARKER.findall(stored)) == {call.marker}
        adapter = ADAPTERS[PROGRAMS.index(call.program)]
        prompts = [json.dumps(payload.messages) for payload in payloads[call.trace_id] if payload.messages]
        assert prompts
        assert all(WORDING[adapter] in prompt for prompt in prompts), (call, adapter)
        check_spans(call, trace)


def check_spans(call: Call, trace: Trace) -> None:
    """Parents are of the same trace; a language model is called by a module, and every module by the run in the end."""
    spans = {span.span_id: span for span in trace.spans.all()}
    assert len(spans) == trace.span_count
    for span in spans.values():
        if span.kind == "run":
            assert span.parent_id == ""
            continue
        parent = spans[span.parent_id]
        assert parent.kind == ("module" if span.kind in ("lm", "adapter") else parent.kind)
        if span.kind == "module":
            assert parent.kind in ("run", "module")
    if not call.fails:
        models = Counter(span.model for span in spans.values() if span.kind == "lm")
        own = {dspy_programs.PINNED_MODEL: 1} if call.program == "pinned" else {}
        assert models == {f"openai/model-{call.program}": LM_CALLS[call.program] - len(own), **own}


def footprint(pinned: dspy.LM) -> list[Any]:
    """What executions must leave as it was: every history, DSPy's one trace list, its process-wide settings."""
    found: list[Any] = [len(GLOBAL_HISTORY), len(pinned.history), len(main_thread_config.trace)]
    for name in PROGRAMS:
        served = catalogue.get(name)
        found.append((name, len(served.lm.history), [len(lm.history) for lm in served.pinned]))
        found += [len(part.history) for _, part in served.template.named_sub_modules() if isinstance(part, dspy.Module)]
    found.append({key: repr(value)[:200] for key, value in main_thread_config.items()})
    return found
