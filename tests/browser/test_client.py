"""`client.js` in a browser, against real servers, through a proxy whose connections break."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from playwright.async_api import Page

from dspyserve.events import TERMINAL
from dspyserve.models import Trace
from tests.api.conftest import make_key
from tests.api.test_run import wait_for_trace
from tests.api.test_stream import check
from tests.browser.chromium import page_of
from tests.proxy import Proxy
from tests.server import Server
from tests.websocket.test_consumer import session

TRANSPORTS = ["sse", "websocket"]
SLOW = "@@words=60@@ @@token_delay=0.02@@"

READ = """
async ({ transport, question, options = {}, client = {}, program = "echo" }) => {
  const { Client } = await import("/static/dspyserve/client.js");
  const stream = new Client(client).stream(program, { question }, { transport, ...options });
  const events = [];
  try {
    for await (const event of stream) {
      events.push(event);
      window.seen = events.length;
    }
    const result = await stream.result.catch((error) => ({ code: error.code }));
    return { events, result, text: stream.text("answer") };
  } catch (error) {
    return { events, error: error.name, code: error.code ?? null };
  }
}
"""


@pytest.fixture
def server(language_model: Any, start_server: Callable[..., Server]) -> Server:
    # What the two servers do differently, the tests of SSE and of sockets see.
    return start_server("uvicorn", DSPYSERVE_TESTS_HEARTBEAT="0.2", DSPYSERVE_TESTS_KEEPALIVE="0.2")


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_from_beginning_to_end(server: Server, transport: str) -> None:
    async with page_of(server.url) as page:
        found = await page.evaluate(READ, {"transport": transport, "question": "Grüße 👋 @@words=30@@ @@chunk=3@@"})
    assert list(check(found["events"]).values()) == [found["text"]]
    assert found["result"]["outputs"]["answer"] == found["text"]
    trace = await Trace.objects.aget(pk=found["events"][0]["trace_id"])
    assert trace.transport == transport


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_broken_stream_is_read_on_by_itself(proxy: Proxy, transport: str) -> None:
    options = {"onDisconnect": "continue"}
    async with page_of(proxy.url) as page:
        reading = asyncio.ensure_future(
            page.evaluate(READ, {"transport": transport, "question": SLOW, "options": options})
        )
        for count in (6, 25, 45):
            await page.wait_for_function("(count) => window.seen >= count", arg=count)
            assert await asyncio.to_thread(proxy.cut) >= 1
        found = await reading
    assert list(check(found["events"]).values()) == [found["result"]["outputs"]["answer"]] == [found["text"]]
    assert (await Trace.objects.aget()).status == "succeeded"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_broken_stream_that_may_not_continue_fails(proxy: Proxy, transport: str) -> None:
    async with page_of(proxy.url) as page:
        reading = asyncio.ensure_future(page.evaluate(READ, {"transport": transport, "question": SLOW}))
        await page.wait_for_function("() => window.seen >= 6")
        await asyncio.to_thread(proxy.cut)
        found = await reading
    assert found["error"] == "ConnectionError"
    assert (await sync_to_async(wait_for_trace)("echo")).status == "cancelled"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_it_cancels_leaves_and_comes_back(server: Server, transport: str) -> None:
    async with page_of(server.url) as page:
        events = await page.evaluate(
            """async ({ transport, question }) => {
              const { Client } = await import("/static/dspyserve/client.js");
              const client = new Client();
              const stream = client.stream("echo", { question }, { transport, onDisconnect: "continue" });
              const events = [];
              for await (const event of stream) {
                events.push(event);
                if (events.length === 9) break;
              }
              const { traceId, lastSeq: after, resumeToken: token } = stream;
              const again = client.resume(traceId, { transport, after, token, program: "echo" });
              for await (const event of again) {
                events.push(event);
                if (events.length === 15) await again.cancel();
              }
              const code = await again.result.catch((error) => error.code);
              return [...events, code];
            }""",
            {"transport": transport, "question": SLOW},
        )
    *events, code = events
    assert code == "cancelled"
    check(events)
    assert (events[-1]["type"], events[-1]["reason"]) == ("run_cancelled", "client")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_leaving_is_no_cancel(server: Server, transport: str) -> None:
    """Whoever reads a stream on and leaves, leaves the execution to what its caller said, with the socket in use."""
    async with page_of(server.url) as page:
        traces = await page.evaluate(
            """async ({ transport, question }) => {
              const { Client } = await import("/static/dspyserve/client.js");
              const client = new Client();
              const left = async (stream) => {
                let count = 0;
                for await (const event of stream) if (++count === 6) return stream;
              };
              const traces = {};
              const other = client.stream("echo", { question }, { transport });
              for (const onDisconnect of ["continue", "cancel"]) {
                const first = client.stream("echo", { question }, { transport: "sse", onDisconnect });
                const events = first[Symbol.asyncIterator]();
                while ((await events.next()).value.seq < 6);
                const { traceId, lastSeq: after, resumeToken: token } = first;
                await left(client.resume(traceId, { transport, after, token, program: "echo" }));
                if (onDisconnect === "cancel") first.close();
                traces[onDisconnect] = traceId;
                const own = await left(client.stream("echo", { question }, { transport, onDisconnect }));
                traces[`own ${onDisconnect}`] = own.traceId;
              }
              traces.other = (await other.result).trace_id;
              return traces;
            }""",
            {"transport": transport, "question": SLOW},
        )
    ends = {name: (await sync_to_async(wait_for_stored)(pk)).status for name, pk in traces.items()}
    assert ends == {
        "continue": "succeeded",
        "own continue": "succeeded",
        "cancel": "cancelled",
        "own cancel": "cancelled",
        "other": "succeeded",
    }


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_is_cancelled_before_it_began_does_not_run_on(server: Server, transport: str) -> None:
    async with page_of(server.url) as page:
        code = await page.evaluate(
            """async ({ transport, question }) => {
              const { Client } = await import("/static/dspyserve/client.js");
              const client = new Client();
              await client.stream("echo", { question: "opens the socket" }, { transport }).result;
              client.stream("echo", { question }, { transport }).close();
              const hasLeft = client.stream("echo", { question }, { transport });
              const goesOn = client.stream("echo", { question }, { transport, onDisconnect: "continue" });
              await new Promise((resolve) => setTimeout(resolve));
              await Promise.all([hasLeft.cancel(), goesOn.cancel()]);
              return goesOn.result.catch((error) => error.code);
            }""",
            {"transport": transport, "question": SLOW},
        )
        await page.wait_for_timeout(2_500)
    assert code == "cancelled"
    found = [trace async for trace in Trace.objects.filter(input_preview__contains="words=60")]
    assert 1 <= len(found) <= 2
    assert {trace.status for trace in found} == {"cancelled"}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_more_streams_than_a_socket_takes(server: Server, transport: str) -> None:
    async with page_of(server.url) as page:
        ends = await page.evaluate(
            """async (transport) => {
              const { Client } = await import("/static/dspyserve/client.js");
              const client = new Client();
              const question = "@@words=20@@ @@token_delay=0.02@@";
              const streams = Array.from({ length: 20 }, () => client.stream("echo", { question }, { transport }));
              const ends = await Promise.all(streams.map(({ result }) => result.then(({ type }) => type, String)));
              client.close();
              ends.push((await client.stream("echo", { question }, { transport }).result).type);
              return ends;
            }""",
            transport,
        )
    assert ends == ["run_end"] * 21


async def test_what_a_socket_cannot_do_is_told_at_once(server: Server) -> None:
    async with page_of(server.url) as page:
        errors = await page.evaluate(
            """async () => {
              const { Client } = await import("/static/dspyserve/client.js");
              const told = (work) => { try { work(); return "nothing"; } catch (error) { return error.message; } };
              const transport = "websocket";
              return [
                told(() => new Client().resume("0".repeat(32), { transport })),
                told(() => new Client({ key: "dsk_1" }).stream("echo", { question: "q" }, { transport })),
              ];
            }"""
        )
    assert errors[0] == "A socket needs the name of the program."
    assert "sends no key" in errors[1]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_problems(server: Server, transport: str) -> None:
    async with page_of(server.url) as page:
        cases = {
            "lm_error": {"question": "@@status=500@@"},
            "invalid_input": {"question": 3},
            "program_not_found": {"question": "q", "program": "nobody"},
            "unauthenticated": {"question": "q", "program": "private"},
        }
        found = {}
        for code, case in cases.items():
            read = await page.evaluate(READ, {"transport": transport, **case})
            found[code] = read["result"]["code"] if "result" in read else read["code"]
            assert sum(event["type"] in TERMINAL for event in read["events"]) == ("result" in read)
    assert list(found.values()) == list(cases)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_page_of_a_signed_in_user(server: Server, transport: str) -> None:
    user_id, cookies = await sync_to_async(session)()
    name, _, value = cookies["Cookie"].partition("=")
    async with page_of(server.url) as page:
        own = {"url": server.url, "httpOnly": True}
        await page.context.add_cookies([{"name": name, "value": value, **own}])  # type: ignore[list-item]
        await page.context.add_cookies([{"name": "csrftoken", "value": "a" * 32, "url": server.url}])
        found = await page.evaluate(READ, {"transport": transport, "program": "private", "question": "q"})
    check(found["events"])
    trace = await Trace.objects.aget(pk=found["events"][0]["trace_id"])
    assert trace.user_id == user_id


async def test_runs_and_programs_with_a_key(server: Server) -> None:
    key = await sync_to_async(make_key)("run")
    async with page_of(server.url) as page:
        found = await page.evaluate(
            """async (key) => {
              const { Client } = await import("/static/dspyserve/client.js");
              const client = new Client({ key });
              const options = { sessionId: "s", tags: ["t"], idempotencyKey: "once" };
              const first = await client.run("private", { question: "q" }, options);
              const second = await client.run("private", { question: "q" }, options);
              const failed = await client.run("private", {}).catch((error) => error.problem.errors[0].pointer);
              const names = (await client.programs()).map((program) => program.name);
              const schema = (await client.program("private")).input_schema;
              return { first, second, failed, names, schema };
            }""",
            key,
        )
    assert found["first"] == found["second"]
    assert found["failed"] == "/inputs/question"
    assert "private" in found["names"]
    assert "question" in found["schema"]["properties"]
    assert await count_with(session_id="s") == 1


def wait_for_stored(trace_id: str) -> Trace:
    """The trace, once it is stored."""
    end = time.monotonic() + 10
    while (trace := Trace.objects.filter(pk=trace_id).first()) is None:
        assert time.monotonic() < end, trace_id
        time.sleep(0.05)
    return trace


async def count_with(**values: Any) -> int:
    """How many traces have these values."""
    return await Trace.objects.filter(**values).acount()


async def test_a_silent_connection_counts_as_broken(proxy: Proxy, server: Server) -> None:
    """A stopped process answers nothing and closes nothing."""
    async with page_of(proxy.url) as page:
        for transport in TRANSPORTS:
            options = {"onDisconnect": "continue"}
            # Long enough for a busy machine to begin in: before the first event there is nothing to come back to.
            case = {"transport": transport, "question": SLOW, "options": options, "client": {"silence": 2_500}}
            await forget(page)
            reading = asyncio.ensure_future(page.evaluate(READ, case))
            await page.wait_for_function("() => window.seen >= 6")
            before = proxy.connections
            server.process.send_signal(19)  # SIGSTOP
            await asyncio.sleep(3.5)
            server.process.send_signal(18)  # SIGCONT
            found = await reading
            check(found["events"])
            assert found["result"]["type"] == "run_end"
            assert proxy.connections > before


async def forget(page: Page) -> None:
    """What was seen of an earlier stream."""
    await page.evaluate("() => { window.seen = 0; }")
