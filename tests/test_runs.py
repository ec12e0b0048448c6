"""What ties an outcome to its trace and its answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dspyserve import runs
from dspyserve.errors import Overloaded, ProgramError
from dspyserve.events import Caller
from dspyserve.models import Program, Trace
from dspyserve.programs.catalogue import catalogue
from dspyserve.tracing import store

pytestmark = pytest.mark.usefixtures("language_model")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Commits wait until this is set."""
    go_on, insert = threading.Event(), store.insert

    def wait(batch: Any, *tally: Any) -> None:
        go_on.wait(20)
        insert(batch, *tally)

    monkeypatch.setattr(store, "insert", wait)
    yield go_on
    go_on.set()


@pytest.fixture
def patient(settings: Any) -> None:
    """Answers wait for their traces as long as a test takes."""
    settings.DSPYSERVE = {**settings.DSPYSERVE, "TRACE_COMMIT_TIMEOUT": 30.0}


@pytest.mark.usefixtures("patient")
class TestCommitBeforeAnswer:
    @pytest.mark.parametrize("program", ["echo", "threaded", "failing"])
    async def test_an_answer_waits_for_its_trace(self, held: threading.Event, program: str) -> None:
        task = asyncio.create_task(runs.aexecute(program, {"question": "q"}))
        await asyncio.sleep(0.5)
        assert not task.done()
        assert not await Trace.objects.aexists()
        held.set()
        (answer,) = await asyncio.gather(task, return_exceptions=True)
        assert answer.trace_stored is True
        assert await Trace.objects.filter(pk=answer.trace_id).aexists()

    async def test_so_does_the_terminal_event_of_a_stream(self, held: threading.Event) -> None:
        stream = await runs.astream("echo", {"question": "q"})
        while (await anext(stream)).type != "module_end":
            pass
        following = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.5)
        assert not following.done()
        held.set()
        last = await following
        assert (last.type, last.data["trace_stored"]) == ("run_end", True)

    def test_and_the_answer_in_the_calling_thread(self, held: threading.Event) -> None:
        answers: list[runs.RunResult] = []
        thread = threading.Thread(target=lambda: answers.append(runs.execute("threaded", {"question": "q"})))
        thread.start()
        thread.join(0.5)
        assert not answers
        held.set()
        thread.join()
        assert answers[0].trace_stored is True


class TestTraces:
    async def test_are_the_same_through_every_door_of_python(self) -> None:
        from asgiref.sync import sync_to_async

        caller = Caller(session_id="s", tags=("t",))
        await runs.aexecute("threaded", {"question": "q"}, caller=caller)
        await sync_to_async(runs.execute)("threaded", {"question": "q"}, caller=caller)
        async for _ in await runs.astream("threaded", {"question": "q"}, caller=caller):
            pass
        shapes = []
        async for trace in Trace.objects.prefetch_related("spans__payload"):
            spans = [
                (s.sequence, s.kind, s.name, s.status, s.payload.inputs, s.payload.messages) for s in trace.spans.all()
            ]
            shapes.append((trace.input_preview, trace.session_id, trace.tags, trace.span_count, trace.cost, spans))
        assert len(shapes) == 3
        assert shapes[0] == shapes[1] == shapes[2]

    async def test_off_leaves_none(self) -> None:
        await Program.objects.filter(name="echo").aupdate(trace_level="off")
        catalogue.forget()
        result = await runs.aexecute("echo", {"question": "q"})
        assert result.trace_stored is False
        assert not await Trace.objects.aexists()

    async def test_one_that_cannot_be_built_does_not_spoil_the_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(record: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr("dspyserve.runs.run.build", fail)
        result = await runs.aexecute("echo", {"question": "q"})
        assert "answer" in result.outputs
        assert result.trace_stored is False


class TestRefusal:
    async def test_a_server_that_shuts_down_starts_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runs.live, "is_draining", True)
        with pytest.raises(Overloaded):
            await runs.aexecute("echo", {"question": "q"})

    async def test_exit_of_a_program_does_not_end_the_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import dspy

        async def leave(self: Any, **_: Any) -> None:
            raise SystemExit(3)

        monkeypatch.setattr(dspy.Predict, "aforward", leave)
        with pytest.raises(ProgramError):
            await runs.aexecute("echo", {"question": "q"})
