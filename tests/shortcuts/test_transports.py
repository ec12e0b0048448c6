"""The shortcuts on the way to providers and back: whatever comes, they do what DSPy would do."""

from __future__ import annotations

import asyncio
import inspect
from importlib import import_module
from typing import Any

import dspy
import pytest
from dspy.clients import execution
from hypothesis import given
from hypothesis import strategies as st

from dspyserve.shortcuts import install
from dspyserve.shortcuts.served_lm import ServedLM
from tests.load.openai_server import OpenAIServer


@pytest.fixture(autouse=True)
def _installed() -> None:
    install()


def _vendored(name: str) -> Any:
    return import_module(f"dspy._vendor.lm15.transports.{name}")


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


PLACES = st.lists(st.integers(0, 10_000), max_size=12)


class TestStreams:
    @given(
        st.lists(st.binary(min_size=1, max_size=40), max_size=6),
        PLACES,
        st.sampled_from([b"", b"X-Trailer: 1\r\n", b"rest"]),
        st.sampled_from([b"0\r\n", b"0;ext=1\r\n", b"zz\r\n", b"\r\n", b"-1\r\n", b"1_0\r\n", b"5\r\nabcdeXX"]),
        st.sampled_from([b"\r\n", b"\n", b";name=value\r\n"]),
    )
    def test_chunks(self, contents: list[bytes], places: list[int], behind: bytes, end: bytes, line_end: bytes) -> None:
        body = b"".join(b"%x%b%b\r\n" % (len(content), line_end, content) for content in contents)
        kind = _vendored("_http11").ChunkedDecoder

        def read(feed: Any) -> tuple[bytes, bool, bytes, str]:
            decoder, found = kind(), b""
            try:
                for piece in _cut(body + end + behind + b"\r\n", places):
                    for part in feed(decoder, piece):
                        found += part
            except Exception as error:
                return found, decoder.complete, b"", repr(error)
            return found, decoder.complete, decoder.leftover, ""

        assert read(kind.feed) == read(inspect.unwrap(kind.feed))

    @given(st.lists(st.sampled_from([b"data: {}", b"\r", b"\n", b"\n\n", b"", b"\xff", b"a: b\n"])), PLACES)
    def test_lines(self, parts: list[bytes], places: list[int]) -> None:
        chunks = _cut(b"".join(parts), places)
        types = _vendored("_types")

        async def several() -> Any:
            for chunk in chunks:
                yield chunk

        async def lines(split: Any) -> list[bytes]:
            return [line async for line in split(several())]

        kind = types.TransportResponse
        assert list(kind.iter_lines(chunks)) == list(inspect.unwrap(kind.iter_lines).__get__(chunks)())
        kind = types.AsyncTransportResponse
        assert asyncio.run(lines(kind.aiter_lines)) == asyncio.run(lines(inspect.unwrap(kind.aiter_lines)))

    def test_a_stream_that_takes_no_texts_gets_all_chunks(self, provider: OpenAIServer) -> None:
        lm = ServedLM("openai/gpt-4o-mini", api_base=provider.url, api_key="k", cache=False)

        def chunks(bridge: Any) -> list[Any]:
            found: list[Any] = []

            class Stream:
                async def send(self, chunk: Any) -> None:
                    found.append(dict(chunk) | {"id": "", "predict_id": ""})

            async def ask() -> None:
                with dspy.context(send_stream=Stream()), pytest.MonkeyPatch.context() as patch:
                    patch.setattr(execution, "ListenerBridge", bridge)
                    await lm.acall("@@words=20@@")

            asyncio.run(ask())
            return found

        assert len(told := chunks(execution.ListenerBridge)) > 10
        assert told == chunks(execution.ListenerBridge.__mro__[1])


class TestTimeouts:
    @staticmethod
    def wait_for() -> tuple[Any, Any]:
        """Ours and DSPy's."""
        ours = _vendored("_async").wait_for
        return ours, inspect.unwrap(ours)

    @pytest.mark.parametrize("waits", [False, True])
    def test_what_need_not_wait_gets_no_task_and_what_reads_a_stream_neither(self, waits: bool) -> None:
        async def tasks(wait_for: Any) -> int:
            made: list[Any] = []
            loop = asyncio.get_running_loop()
            loop.set_task_factory(lambda *given, **named: made.append(given) or asyncio.Task(given[1], loop=loop))
            semaphore, reader = asyncio.Semaphore(1), asyncio.StreamReader()
            if waits:
                loop.call_later(0.01, reader.feed_data, b"data")
                assert await wait_for(reader.read(10), 5) == b"data"
            else:
                assert await wait_for(semaphore.acquire(), 5) is True
            return len(made)

        ours, stock = self.wait_for()
        assert (asyncio.run(tasks(ours)), asyncio.run(tasks(stock))) == (0, 1)

    @pytest.mark.parametrize("what", ["a place", "data"])
    @pytest.mark.parametrize("how", ["comes", "times out", "is cancelled", "is cancelled at once", "fails"])
    def test_what_has_to_wait_ends_alike(self, how: str, what: str) -> None:
        async def end(wait_for: Any) -> tuple[str, int, bool]:
            reader = asyncio.StreamReader()
            semaphore = asyncio.Semaphore(0)
            awaited = semaphore.acquire() if what == "a place" else reader.read(10)
            task = asyncio.ensure_future(wait_for(awaited, 0.05 if how == "times out" else 5))
            await asyncio.sleep(0 if "once" in how else 0.01)
            match how:
                case "comes" | "fails" if what == "a place":
                    semaphore.release()
                case "comes":
                    reader.feed_data(b"data")
                case "fails":
                    reader.set_exception(ValueError("broken"))
                case "is cancelled" | "is cancelled at once":
                    task.cancel()
            done = await asyncio.gather(task, return_exceptions=True)
            # Nothing is left behind: neither a reader that waits nor a place in the queue.
            left = len(semaphore._waiters or ()), reader._waiter is None
            return repr(done[0]), *left

        ours, stock = self.wait_for()
        assert asyncio.run(end(ours)) == asyncio.run(end(stock))

    def test_whoever_is_cancelled_while_data_comes_is_cancelled(self) -> None:
        async def end(wait_for: Any) -> tuple[type, bytes]:
            reader = asyncio.StreamReader()
            task = asyncio.ensure_future(wait_for(reader.read(10), 5))
            await asyncio.sleep(0.01)
            reader.feed_data(b"data")
            task.cancel()
            done = await asyncio.gather(task, return_exceptions=True)
            return type(done[0]), bytes(reader._buffer)

        ours, _ = self.wait_for()
        assert asyncio.run(end(ours)) == (asyncio.CancelledError, b"data")

    def test_others_go_dspys_way(self) -> None:
        async def other() -> Any:
            await asyncio.sleep(0)
            return asyncio.current_task()

        async def is_here(wait_for: Any) -> bool:
            return await wait_for(other(), 5) is asyncio.current_task()

        assert [asyncio.run(is_here(each)) for each in self.wait_for()] == [False, False]
