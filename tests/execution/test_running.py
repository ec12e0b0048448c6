"""Where executions run, what they share, how they are stopped, and who is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest
from asgiref.sync import sync_to_async
from dspy.clients.base_lm import GLOBAL_HISTORY

from dspyserve import ContextThreadPoolExecutor, runs, send_status
from dspyserve.errors import Overloaded, ProgramError, RunCancelled, RunTimeout
from dspyserve.execution.capacity import Gate, gates
from dspyserve.models import LanguageModel, Program, Trace
from dspyserve.programs.catalogue import catalogue
from tests import dspy_programs
from tests.load.openai_server import OpenAIServer

pytestmark = pytest.mark.usefixtures("language_model")


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    dspy_programs.release.clear()
    dspy_programs.started.clear()
    yield
    dspy_programs.release.set()
    wait_until(lambda: gates.threads.active == 0)


def wait_until(condition: Any, timeout: float = 10) -> None:
    """Wait for another thread."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


class TestEventLoop:
    async def test_never_waits_for_a_synchronous_program(self) -> None:
        ticks = 0
        task = asyncio.create_task(runs.aexecute("blocking", {"question": "q"}))
        while not dspy_programs.started:
            await asyncio.sleep(0.001)
        # The program holds its thread now: were it this one, nothing here would go on.
        for _ in range(100):
            await asyncio.sleep(0)
            ticks += 1
        assert not task.done()
        dspy_programs.release.set()
        assert (await task).outputs == {"question": "q"}
        assert ticks == 100

    async def test_never_reads_the_answer_of_a_synchronous_program(self, serve: Any) -> None:
        class Answer:
            def __str__(self) -> str:
                return threading.current_thread().name

        class Program(dspy.Module):
            def forward(self, question: str) -> Any:
                return dspy.Prediction(answer=Answer())

        name = await sync_to_async(serve)(Program, outputs={"answer": str})
        result = await runs.aexecute(name, {"question": "q"})
        assert result.outputs["answer"].startswith("dspyserve-run-")

    async def test_default_executor_is_left_to_dspy(self) -> None:
        loop = asyncio.get_running_loop()
        own = ThreadPoolExecutor(1)
        loop.set_default_executor(own)
        hold = threading.Event()
        own.submit(hold.wait, 20)
        try:
            # With the one thread of the default executor taken, a synchronous program still runs.
            result = await asyncio.wait_for(runs.aexecute("threaded", {"question": "q"}), 15)
        finally:
            hold.set()
        assert "answer" in result.outputs

    @pytest.mark.parametrize("program", ["echo", "threaded"])
    async def test_settings_of_the_awaiting_task_stay(self, program: str) -> None:
        before = dict(dspy.settings.config)
        await runs.aexecute(program, {"question": "q"})
        assert dict(dspy.settings.config) == before
        assert dspy.settings.lm is None

    async def test_execute_refuses_to_stop_a_loop(self) -> None:
        with pytest.raises(RuntimeError, match="aexecute"):
            runs.execute("echo", {"question": "q"})


class TestIsolation:
    async def test_a_program_starts_anew_every_time(self) -> None:
        for number in range(3):
            outputs = (await runs.aexecute("stateful", {"question": f"q{number}"})).outputs
            assert outputs["seen"] == [f"q{number}"]
            assert outputs["traced"] == 1

    async def test_no_history_grows(self) -> None:
        before = len(GLOBAL_HISTORY)
        for program in ("echo", "threaded", "parallel", "pooled", "gathered"):
            await runs.aexecute(program, {"question": "q"})
        served = await catalogue.aget("threaded")
        assert (len(GLOBAL_HISTORY), len(served.lm.history), len(served.template.history)) == (before, 0, 0)

    async def test_threads_of_parallel_and_of_the_own_pool_are_recorded(self) -> None:
        for program, calls in (("parallel", 6), ("pooled", 4)):
            result = await runs.aexecute(program, {"question": "q"})
            trace = await Trace.objects.aget(pk=result.trace_id)
            assert trace.lm_calls == calls
            assert result.usage["input_tokens"] == trace.input_tokens
            assert trace.cost is not None
            assert trace.cost > 0

    async def test_a_plain_pool_fails_loudly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Not with another program's language model: none is configured for the process.
        monkeypatch.setattr(dspy_programs.InOwnPool, "pool", ThreadPoolExecutor)
        with pytest.raises(ProgramError) as caught:
            await runs.aexecute("pooled", {"question": "q"})
        assert "No LM is loaded" in str(caught.value.__cause__)

    def test_the_context_pool_gives_each_job_a_copy(self) -> None:
        with dspy.context(dspyserve_probe=1), ContextThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: dspy.settings.get("dspyserve_probe")).result() == 1
        with ContextThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: dspy.settings.get("dspyserve_probe")).result() is None

    async def test_runs_inside_runs_are_executions_of_their_own(self, serve: Any) -> None:
        class Outer(dspy.Module):
            def forward(self, question: str) -> Any:
                inner = runs.execute("threaded", {"question": question})
                return dspy.Prediction(answer=inner.outputs["answer"], inner=inner.trace_id)

        name = await sync_to_async(serve)(Outer)
        result = await runs.aexecute(name, {"question": "q"})
        outer = await Trace.objects.aget(pk=result.trace_id)
        inner = await Trace.objects.aget(pk=result.outputs["inner"])
        assert (outer.lm_calls, inner.lm_calls) == (0, 2)
        assert inner.span_count == 6

    async def test_a_cached_call_costs_nothing(self, language_model: LanguageModel) -> None:
        language_model.cache = True
        await language_model.asave()
        question = f"cached {time.time_ns()}"
        first = await runs.aexecute("echo", {"question": question})
        second = await runs.aexecute("echo", {"question": question})
        assert first.outputs == second.outputs
        assert first.cost is not None
        assert first.cost > 0
        assert (second.cost, second.usage) == (0.0, {})
        trace = await Trace.objects.aget(pk=second.trace_id)
        assert [span.is_cached async for span in trace.spans.filter(kind="lm")] == [True]

    async def test_a_cached_stream_gives_its_fields(self, language_model: LanguageModel) -> None:
        language_model.cache = True
        await language_model.asave()
        inputs = {"question": f"cached {time.time_ns()}"}
        await runs.aexecute("echo", inputs)
        events = [event async for event in await runs.astream("echo", inputs)]
        tokens = [event.data["delta"] for event in events if event.type == "token"]
        assert tokens == [events[-1].data["outputs"]["answer"]]


class TestStatus:
    async def test_a_program_tells_its_reader_from_every_thread(self, serve: Any) -> None:
        class Telling(dspy.Module):
            def forward(self, question: str) -> Any:
                send_status(f"reading {question}")
                with ContextThreadPoolExecutor(1) as pool:
                    pool.submit(send_status, "in a pool").result()
                return dspy.Prediction(answer=question)

        name = await sync_to_async(serve)(Telling)
        events = [event.as_dict() async for event in await runs.astream(name, {"question": "q"})]
        assert [event["message"] for event in events if event["type"] == "status"] == ["reading q", "in a pool"]

    def test_outside_of_an_execution_it_is_silent(self) -> None:
        send_status("nobody hears")


class TestStopping:
    @pytest.mark.parametrize("program", ["stubborn", "parallel"])
    async def test_a_deadline_stops_the_next_call(self, provider: OpenAIServer, program: str) -> None:
        with pytest.raises(RunTimeout) as caught:
            await runs.aexecute(program, {"question": "@@delay=0.15@@"}, timeout=0.3)
        assert caught.value.trace_stored is True
        trace = await Trace.objects.aget(pk=caught.value.trace_id)
        assert (trace.status, trace.error_code) == ("timed_out", "timeout")
        await until_quiet(provider)

    async def test_a_cancel_stops_the_next_call(self, provider: OpenAIServer) -> None:
        task = asyncio.create_task(runs.aexecute("stubborn", {"question": "@@delay=0.05@@"}))
        while len(provider.requests) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_quiet(provider)
        await until_no_run()
        trace = await Trace.objects.aget()
        assert (trace.status, trace.error_code) == ("cancelled", "cancelled")

    async def test_a_native_async_program_drops_its_request(self, provider: OpenAIServer) -> None:
        with pytest.raises(RunTimeout):
            await runs.aexecute("echo", {"question": "@@hang=1@@"}, timeout=0.3)
        while provider.aborted == 0:
            await asyncio.sleep(0.01)
        assert provider.in_flight == 0

    async def test_a_cancelled_stream_ends_once(self) -> None:
        stream = await runs.astream("sleeper", {"seconds": 30.0})
        events = []
        async for event in stream:
            events.append(event)
            if event.type == "tool_start":
                stream.cancel()
        assert [event.type for event in events].count("run_cancelled") == 1
        assert events[-1].type == "run_cancelled"
        assert [event.seq for event in events] == list(range(1, len(events) + 1))

    async def test_a_stream_that_is_thrown_away_stops(self) -> None:
        await runs.astream("sleeper", {"seconds": 30.0})
        await until_no_run()
        assert (await Trace.objects.aget()).status == "cancelled"

    def test_in_the_calling_thread_too(self) -> None:
        with pytest.raises(RunTimeout):
            runs.execute("sleeper", {"seconds": 30.0}, timeout=0.2)
        assert Trace.objects.get().status == "timed_out"

    async def test_shutdown_is_told_apart(self) -> None:
        task = asyncio.create_task(runs.aexecute("sleeper", {"seconds": 30.0}))
        while not len(runs.live):
            await asyncio.sleep(0.01)
        runs.live.stop_all()
        with pytest.raises(RunCancelled) as caught:
            await task
        assert caught.value.reason == "shutdown"


class TestCapacity:
    async def test_two_run_one_waits_the_rest_is_refused(self) -> None:
        await catalogue.aget("blocking")  # built, so that the calls are admitted in their order
        tasks = [asyncio.create_task(runs.aexecute("blocking", {"question": str(number)})) for number in range(3)]
        while len(dspy_programs.started) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(Overloaded) as caught:
            await runs.aexecute("blocking", {"question": "refused"})
        assert caught.value.retry_after is not None
        assert sorted(dspy_programs.started) == ["0", "1"]
        dspy_programs.release.set()
        await asyncio.gather(*tasks)
        assert dspy_programs.started[2] == "2"

    async def test_a_place_is_free_only_when_the_thread_ended(self) -> None:
        for number in range(2):
            with pytest.raises(RunTimeout):
                await runs.aexecute("blocking", {"question": str(number)}, timeout=0.2)
        gate = gates.program("blocking")
        # Both were answered; both threads still hang.
        assert (gate.active, gates.threads.active) == (2, 2)
        waiting = asyncio.create_task(runs.aexecute("blocking", {"question": "2"}))
        await asyncio.sleep(0.1)
        assert gate.waiting == 1
        dspy_programs.release.set()
        await waiting
        await asyncio.sleep(0.1)
        assert (gate.active, gates.threads.active) == (0, 0)

    async def test_one_who_gives_up_waiting_leaves_the_queue(self) -> None:
        tasks = [asyncio.create_task(runs.aexecute("blocking", {"question": str(number)})) for number in range(2)]
        while len(dspy_programs.started) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(RunTimeout):
            await runs.aexecute("blocking", {"question": "impatient"}, timeout=0.1)
        assert gates.program("blocking").waiting == 0
        dspy_programs.release.set()
        await asyncio.gather(*tasks)
        assert "impatient" not in dspy_programs.started

    @pytest.mark.parametrize("program", ["echo", "threaded", "failing", "parallel"])
    async def test_places_are_back_after_every_end(self, program: str) -> None:
        for directive in ("", "@@status=500@@", "@@garbage=1@@"):
            await asyncio.gather(
                *(runs.aexecute(program, {"question": f"q {directive}"}) for _ in range(4)), return_exceptions=True
            )
        for _ in range(100):
            if gates.program(program).active == gates.threads.active == 0:
                break
            await asyncio.sleep(0.01)
        assert (gates.program(program).active, gates.threads.active) == (0, 0)

    async def test_concurrency_of_native_async_programs_is_bounded(self, provider: OpenAIServer) -> None:
        await Program.objects.filter(name="echo").aupdate(max_concurrency=3)
        catalogue.forget()
        await asyncio.gather(*(runs.aexecute("echo", {"question": "@@delay=0.05@@"}) for _ in range(12)))
        assert provider.peak_in_flight == 3

    def test_the_queue_is_first_in_first_out(self) -> None:
        gate = Gate("it")
        tickets = [gate.enter(limit=1, queue=3) for _ in range(4)]
        assert [ticket.done() for ticket in tickets] == [True, False, False, False]
        gate.give_up(tickets[1])
        gate.leave()
        assert [ticket.done() for ticket in tickets[2:]] == [True, False]
        gate.leave()
        gate.leave()
        assert (gate.active, gate.waiting) == (0, 0)


async def until_quiet(provider: OpenAIServer) -> None:
    """Wait until no request is under way, then see that none follows."""
    while provider.in_flight:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    count = len(provider.requests)
    await asyncio.sleep(0.4)
    assert len(provider.requests) == count


async def until_no_run() -> None:
    """Wait for the end of all runs."""
    for _ in range(1000):
        if not len(runs.live):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a run goes on")
