"""Tokens from every thread, without `dspy.streamify`: DSPy sends each chunk of a language model's stream here."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from anyio.from_thread import threadlocals  # type: ignore[attr-defined]
from anyio.lowlevel import EventLoopToken
from dspy.utils.callback import ACTIVE_CALL_ID

from dspyserve.execution.field_splitters import FieldSplitter, splitter_for

if TYPE_CHECKING:
    from dspyserve.execution.recorder import Recorder


class TokenStream:
    """What DSPy's settings hold as `send_stream`: splits each LM call's text into the deltas of its output fields."""

    def __init__(self, recorder: Recorder) -> None:
        self.listener = _Listener()
        self._recorder = recorder
        self._calls: dict[str, _CallStream] = {}

    async def send(self, chunk: Any) -> None:
        """Take a chunk: an `EngineChunk` or litellm's `ModelResponseStream`. Never waits."""
        call_id = ACTIVE_CALL_ID.get() or ""
        stream = self._calls.get(call_id)
        if stream is None:
            predictor = self._recorder.predictor_of(call_id)
            if predictor is None or predictor[-1] is None:
                return
            stream = self._calls[call_id] = _CallStream(self._recorder, *predictor)
        self._recorder.signal.check()
        stream.take(chunk)


class _CallStream:
    """The stream of one LM call."""

    def __init__(self, recorder: Recorder, span_id: str, predictor: str, adapter: Any, signature: Any) -> None:
        self._token: Callable[[str, str], None] = lambda name, delta: recorder.token(span_id, predictor, name, delta)
        self._splitter: FieldSplitter = splitter_for(adapter, signature)
        self._is_over = False

    def take(self, chunk: Any) -> None:
        if self._is_over or not chunk.choices:
            return
        choice = chunk.choices[0]
        if reasoning := getattr(choice.delta, "reasoning_content", None):
            self._token("reasoning", reasoning)
        if content := getattr(choice.delta, "content", None):
            for name, delta in self._splitter.feed(content):
                self._token(name, delta)
        # Further completions of the same call (n > 1) are streamed after the first: only one is told.
        self._is_over = choice.finish_reason is not None


class _Listener:
    """The one entry of `stream_listeners`: DSPy asks it of every predictor whether that may stream."""

    def __init__(self) -> None:
        self.predict = _MayStream()


class _MayStream:
    """Equal to every predictor that can stream from where it is called (`Predict._should_stream` compares with it).

    The synchronous path hands each chunk to `anyio.from_thread.run`, which looks for a token in a thread-local. It is
    set here, in the thread that makes the call, so that tokens flow from `sync_to_async` and `dspy.Parallel` threads,
    where anyio has none. A synchronous call on an event loop's own thread must not stream: it would wait for itself.
    """

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, predictor: object) -> bool:
        if asyncio._get_running_loop() is not None:
            return _called_by("aforward")
        if not hasattr(threadlocals, "current_token"):
            threadlocals.current_token = INLINE_TOKEN
        return True


def _called_by(name: str) -> bool:
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_name not in ("forward", "aforward"):
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None and frame.f_code.co_name == name


class _InlineBackend:
    """Runs what `anyio.from_thread.run` is given on the spot, in the calling thread."""

    @staticmethod
    def run_async_from_thread(
        func: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...], token: Any = None
    ) -> Any:
        if not isinstance(getattr(func, "__self__", None), TokenStream):
            # The litellm engine passes a whole request, which needs a loop to wait on.
            return asyncio.run(func(*args))
        coroutine = func(*args)
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value
        raise RuntimeError("TokenStream.send() must not wait")


INLINE_TOKEN = EventLoopToken(_InlineBackend, None)  # type: ignore[arg-type]
