"""Tokens from every thread, without `dspy.streamify`: DSPy sends each chunk of a language model's stream here."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import dspy
from anyio.from_thread import threadlocals  # type: ignore[attr-defined]
from anyio.lowlevel import EventLoopToken
from dspy.clients import call_context
from dspy.utils.callback import ACTIVE_CALL_ID

from dspyserve.events import REASONING_CONTENT
from dspyserve.execution.field_splitters import splitter_for

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
        _allow_fallback()
        if (stream := self._call_stream()) is not None:
            self._recorder.signal.check()
            stream.take(chunk)

    def texts(self) -> Callable[[str, str], None] | None:
        """What takes the texts of the call that is under way, as `shortcuts.streams` hands them over."""
        stream = self._call_stream()
        return None if stream is None else stream.take_text

    def _call_stream(self) -> _CallStream | None:
        call_id = ACTIVE_CALL_ID.get() or ""
        stream = self._calls.get(call_id)
        if stream is None:
            predictor = self._recorder.predictor_of(call_id)
            if predictor is None or predictor[-1] is None:
                return None
            stream = self._calls[call_id] = _CallStream(self._recorder, *predictor)
        return stream


class _CallStream:
    """The stream of one LM call."""

    def __init__(self, recorder: Recorder, span_id: str, predictor: str, adapter: Any, signature: Any) -> None:
        self._recorder = recorder
        self._span_id = span_id
        self._predictor = predictor
        self._feed = splitter_for(adapter, signature).feed
        self._thinking = _thinking_field(adapter, signature)
        self._thought = False
        self._is_over = False

    def take(self, chunk: Any) -> None:
        """Take a chunk."""
        if self._is_over or not (choices := chunk.choices):
            return
        choice = choices[0]
        piece = choice.delta
        if thinking := getattr(piece, "reasoning_content", None):
            self._take_thinking(thinking)
        if content := getattr(piece, "content", None):
            self._take_content(content)
        # Further completions of the same call (n > 1) are streamed after the first: only one is told.
        self._is_over = choice.finish_reason is not None

    def take_text(self, kind: str, text: str) -> None:
        """Take the text of a piece, `text` or `thinking` by its kind. Raises where the run is to stop."""
        self._recorder.signal.check()
        if self._is_over:
            return
        if kind == "text":
            self._take_content(text)
        else:
            self._take_thinking(text)

    def _take_thinking(self, text: str) -> None:
        if self._thinking:
            self._thought = True
            self._recorder.token(self._span_id, self._predictor, self._thinking, text)

    def _take_content(self, text: str) -> None:
        for name, delta in self._feed(text):
            # Where the model's own thinking is the field, what it writes under the field's name is not.
            if not (self._thought and name == self._thinking):
                self._recorder.token(self._span_id, self._predictor, name, delta)


def _thinking_field(adapter: Any, signature: Any) -> str | None:
    """The field that a model's own thinking streams as: the one that DSPy makes of it, or one beside the signature's.

    For a model that is known to think, the adapter takes the field out of the signature; that of the predictor has it.
    """
    predictor = dspy.settings.get("caller_predict")
    fields = {**getattr(getattr(predictor, "signature", None), "output_fields", {}), **signature.output_fields}
    if dspy.Reasoning in getattr(adapter, "native_response_types", ()):
        for name, field in fields.items():
            if field.annotation is dspy.Reasoning:
                return str(name)
    return REASONING_CONTENT if REASONING_CONTENT not in fields else None


def _allow_fallback() -> None:
    """Let the adapter try again when it cannot read the answer, as it may without a stream: clients are told.

    DSPy gives that up at the first chunk, since its own streams cannot take anything back.
    """
    for progress in call_context._adapter_calls.get():
        progress.emitted = False


class _Listener:
    """The one entry of `stream_listeners`: DSPy asks it of every predictor whether that may stream."""

    def __init__(self) -> None:
        self.predict = _MayStream()


class _MayStream:
    """Equal to every predictor that can stream from where it is called (`Predict._should_stream` compares with it).

    A synchronous call on an event loop's own thread must not stream: it would wait for itself.
    """

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, predictor: object) -> bool:
        return asyncio._get_running_loop() is None or _called_by("aforward")


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


def let_threads_stream() -> None:
    """Called in the thread that is about to call a language model, whatever calls it, so that its tokens flow.

    The synchronous path hands each chunk to `anyio.from_thread.run`, which looks for a token in a thread-local and
    fails without one; `sync_to_async`, `dspy.Parallel` and programs' own threads have none.
    """
    if not hasattr(threadlocals, "current_token"):
        threadlocals.current_token = INLINE_TOKEN
