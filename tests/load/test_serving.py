"""The benchmark of requests: its provider answers DSPy, its load counts what is right, its tables tell it."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.lm15 import RouterConfig

from tests.load.processes import Process
from tests.load.raw_http import Inbox, ServerConnection
from tests.load.serving.contenders import Served
from tests.load.serving.load import RunFailed, Target, at_once, for_seconds
from tests.load.serving.provider import completion_for
from tests.load.serving.questions import answer, question
from tests.load.serving.readings import Case, Pace, Series, rounds, rounds_of_all, steady_latencies
from tests.load.serving.tables import Comparison, print_ratios, ratios
from tests.server import free_port

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    port = free_port()
    command = [sys.executable, "-m", "tests.load.serving.provider", str(port)]
    with Process(command, port, tmp_path_factory.mktemp("provider") / "log", {}) as process:
        yield process


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    # The module lets DSPy have more connections, in the whole process.
    monkeypatch.setitem(RouterConfig.__init__.__kwdefaults__, "max_connections", None)
    return import_module("tests.load.serving.modules")


class TestProvider:
    """It answers every program of the benchmark, through DSPy itself."""

    @pytest.mark.parametrize(("name", "calls"), [("Ask", 1), ("AskInThread", 1), ("ThreeSteps", 3), ("Agent", 4)])
    def test_it_answers_the_programs(self, provider: Process, modules: Any, name: str, calls: int) -> None:
        lm = _language_model(provider)
        with dspy.context(lm=lm, track_usage=True):
            prediction = getattr(modules, name)()(question=question(17, 0))
        assert prediction.answer == answer(17)
        assert len(lm.history) == calls
        assert lm.history[-1]["usage"]["completion_tokens"] == 60

    async def test_it_answers_the_native_async_program(self, provider: Process, modules: Any) -> None:
        with dspy.context(lm=_language_model(provider)):
            predictions = await asyncio.gather(*(modules.AskOnLoop().acall(question=question(n, 1)) for n in range(9)))
        assert [prediction.answer for prediction in predictions] == [answer(number) for number in range(9)]

    def test_it_reads_its_latency_from_the_prompt(self) -> None:
        asked = f"{question(3, 250)} ... starting with the field `[[ ## answer ## ]]`"
        found = completion_for(asked.encode())
        assert found is not None
        assert found[0] == 0.25

    @pytest.mark.parametrize("prompt", ["", "starting with the field `[[ ## answer ## ]]`", question(1, 0)])
    def test_it_refuses_other_prompts(self, prompt: str) -> None:
        assert completion_for(prompt.encode()) is None


class TestLoad:
    """It asks for so long, or so often, and takes no wrong answer."""

    async def test_it_keeps_connections_and_counts_every_answer(self) -> None:
        async with _tiny_server(_right) as (target, connections):
            times = await for_seconds(target, 5, 0.2, 10)
        assert len(connections) == 5
        assert len(times) == sum(connection.count for connection in connections)
        assert 20 < len(times) < 110
        assert all(end - start >= 0.009 for start, end in times)

    async def test_it_asks_all_at_once(self) -> None:
        async with _tiny_server(_right) as (target, connections):
            times = await at_once(target, 30, 50)
        assert len(times) == len(connections) == 30
        assert max(start for start, _ in times) < min(end for _, end in times)

    @pytest.mark.parametrize(
        "reply",
        [
            lambda number: _response(200, answer(number + 1)),
            lambda number: _response(500, answer(number)),
            lambda number: b"",
        ],
        ids=["another's answer", "an error", "closed"],
    )
    async def test_it_takes_no_wrong_answer(self, reply: Callable[[int], bytes]) -> None:
        async with _tiny_server(reply) as (target, _):
            with pytest.raises(RunFailed):
                await for_seconds(target, 2, 0.2, 0)

    def test_messages_may_come_in_pieces(self) -> None:
        inbox = Inbox()
        whole = _response(200, "text")
        assert [inbox.take(whole[i : i + 1]) for i in range(len(whole) - 1)] == [None] * (len(whole) - 1)
        head, body = inbox.take(whole[-1:]) or (b"", b"")
        assert head.startswith(b"HTTP/1.1 200")
        assert body == b'{"answer":"text"}'
        assert inbox.take(whole) == (head, body)


class TestReadings:
    """Rounds in turns, and what is made of them."""

    async def test_rounds_alternate(self, provider: Process) -> None:
        asked: list[str] = []

        def contender(name: str, target: Target) -> Served:
            return Served(name, provider, lambda program: asked.append(name) or target)  # type: ignore[func-returns-value]

        async with _tiny_server(_right) as (target, _):
            pair = [contender("one", target), contender("other", target)]
            pace = Pace(seconds=0.05, rounds=3, settling=0.0)
            found = await rounds(pair, Case(concurrency=2, latency_ms=5), pace, provider)
        assert asked == ["one", "other", "other", "one", "one", "other", "other", "one"]
        for series in found:
            assert len(series.speed) == len(series.cpu) == len(series.rss) == 3
            assert all(0.005 <= value < 1 for value in (*series.median, *series.p99))
            assert all(speed > 10 for speed in series.speed)

    async def test_rounds_of_several_cases_may_have_processes_of_their_own(self, provider: Process) -> None:
        asked: list[str] = []
        processes = 1

        def contenders() -> list[Served]:
            name = f"process {processes}"
            return [Served("one", provider, lambda program: asked.append(f"{program} {name}") or target)]  # type: ignore[func-returns-value]

        def renew() -> None:
            nonlocal processes
            processes += 1

        cases = [Case(program, concurrency=2, latency_ms=5) for program in "ab"]
        async with _tiny_server(_right) as (target, _):
            pace = Pace(seconds=0.05, rounds=2, settling=0.0)
            found = await rounds_of_all(contenders, cases, pace, provider, renew)
        warmed = [f"{program} process {number}" for number in (1, 2) for program in "ab" for _ in range(2)]
        assert asked == warmed
        assert [[len(series.speed) for series in each] for each in found] == [[2], [2]]

    def test_those_that_ask_in_the_first_moment_do_not_count(self) -> None:
        assert steady_latencies([(0.0, 9.0), (2.0, 3.0), (0.0, 8.0)], concurrency=2) == [1.0]
        assert steady_latencies([(0.0, 9.0)], concurrency=2) == [9.0]

    @pytest.mark.parametrize(("cpu", "verdict"), [(0.8, "≤ 0.9, met"), (1.0, "≤ 0.9, missed")])
    def test_ratios_stand_beside_their_targets(
        self, capsys: pytest.CaptureFixture[str], cpu: float, verdict: str
    ) -> None:
        ours = Series("ours", cpu=[cpu, cpu * 2, cpu], speed=[300, 200, 100], p99=[1, 1, 1])
        theirs = Series("theirs", cpu=[1, 1, 1], speed=[100, 100, 100], p99=[2, 2, 2])
        compared = [Comparison("a case", ours, theirs, ratios(cpu=0.9, speed=2.5))]
        print_ratios(compared, judged=True)
        print_ratios(compared, judged=False)
        rows = [re.split(r" *\| *", line)[3:-1] for line in capsys.readouterr().out.splitlines() if "a case" in line]
        assert rows[0] == ["CPU per request", f"{cpu:.2f}", f"{cpu:.2f}–{cpu * 2:.2f}", verdict]
        assert rows[1] == ["requests/s", "2.00", "1.00–3.00", "≥ 2.5, missed"]
        assert rows[2] == ["p99", "0.50", "0.50–0.50", "–"]
        assert rows[4][-1] == "≥ 2.5"


class _Connection(ServerConnection):
    """Answers after the latency that the question names."""

    def __init__(self, reply: Callable[[int], bytes]) -> None:
        super().__init__()
        self.count = 0
        self._reply = reply

    def answer(self, body: bytes) -> None:
        found = re.search(rb"Question (\d+), to be answered after (\d+) ms", body)
        assert found is not None
        self.count += 1
        asyncio.get_running_loop().call_later(int(found[2]) / 1000, self._send, int(found[1]))

    def _send(self, number: int) -> None:
        if reply := self._reply(number):
            self.transport.write(reply)
        else:
            self.transport.close()


@asynccontextmanager
async def _tiny_server(reply: Callable[[int], bytes]) -> AsyncIterator[tuple[Target, list[_Connection]]]:
    connections: list[_Connection] = []

    def connect() -> _Connection:
        connections.append(_Connection(reply))
        return connections[-1]

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield Target(port, "/predict", lambda asked: {"question": asked}), connections
    finally:
        server.close()


def _right(number: int) -> bytes:
    return _response(200, answer(number))


def _response(status: int, text: str) -> bytes:
    body = f'{{"answer":"{text}"}}'.encode()
    return b"HTTP/1.1 %d Any\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def _language_model(provider: Process) -> dspy.LM:
    address = f"http://127.0.0.1:{provider.port}/v1"
    return dspy.LM("openai/gpt-4o-mini", api_base=address, api_key="benchmark", cache=False)


def test_the_modules_need_nothing_but_dspy() -> None:
    source = (Path(__file__).parent / "serving" / "modules.py").read_text()
    imported = set(re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE))
    assert imported == {"__future__", "dspy"}
