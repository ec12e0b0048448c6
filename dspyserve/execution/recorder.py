"""The callback object of one run: it turns what DSPy tells into events, and stops the program when it has to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import dspy
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback

from dspyserve.events import FIELD, FIELD_RESET, Event
from dspyserve.execution.event_log import EventLog
from dspyserve.execution.field_splitters import is_text
from dspyserve.execution.history_hook import HistoryHook
from dspyserve.execution.lm_facts import lm_facts
from dspyserve.execution.signatures import signature_facts
from dspyserve.execution.snapshots import arguments, message_of, snapshot
from dspyserve.execution.span_ids import span_ids
from dspyserve.execution.stopping import StopSignal
from dspyserve.execution.token_stream import let_threads_stream
from dspyserve.programs.served import PATH_ATTRIBUTE

_CLIENT_PARAMETERS: Final = frozenset({"api_key", "api_base", "base_url", "headers", "extra_headers", "timeout"})


@dataclass(slots=True)
class _Call:
    """A call that DSPy told the start of."""

    kind: str
    span_id: str
    parent_id: str
    parent_call: str | None
    name: str
    started: float
    usage: list[Mapping[str, Any]] = field(default_factory=list)
    history: list[Mapping[str, Any]] = field(default_factory=list)
    first_chunk: float | None = None
    is_predictor: bool = False


class Recorder(BaseCallback):
    """Collects the events of one run. Every method may be called from any thread.

    `payloads` is whether inputs and outputs are wanted at all. The events it collected, not what readers took, become
    the trace; tokens go to the log alone.
    """

    def __init__(
        self, trace_id: str, signal: StopSignal, *, payloads: bool = True, log: EventLog | None = None
    ) -> None:
        self.trace_id = trace_id
        self.signal = signal
        self._span_ids = span_ids()
        self.root_id = next(self._span_ids)
        self.events: list[Event] = []
        self.first_token_at: float | None = None
        self._payloads = payloads
        self._log = log
        self._lock = threading.Lock()
        self._seq = 0
        self._is_closed = False
        self._calls: dict[str, _Call] = {}
        self._formats: dict[str | None, tuple[Any, Any]] = {}
        self._parsing: dict[str, Any] = {}
        self._texts: dict[tuple[str, str], list[str]] = {}
        # Of predictors, by their spans: those whose answer was read, and those whose answer could not be.
        self._read: set[str] = set()
        self._unread: set[str] = set()

    # Events

    def emit(
        self,
        type: str,  # noqa: A002 - the events' own word
        *,
        span_id: str | None = None,
        parent_id: str | None = None,
        name: str | None = None,
        final: bool = False,
        **data: Any,
    ) -> None:
        """Add an event, with the next number. After a `final` one, nothing is added any more."""
        self._add(type, span_id, parent_id, name, data, final=final)

    def _add(
        self,
        kind: str,
        span_id: str | None,
        parent_id: str | None,
        name: str | None,
        data: dict[str, Any],
        *,
        final: bool = False,
    ) -> None:
        """As `emit`; `data` is the event's from now on."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = final
            self._seq += 1
            event = Event(
                type=kind,
                seq=self._seq,
                trace_id=self.trace_id,
                at=time.time(),
                span_id=span_id,
                parent_id=parent_id,
                name=name,
                data=data,
            )
            self.events.append(event)
            if self._log is not None:
                self._log.append(event)

    def taken(self) -> list[Event]:
        """The events so far."""
        with self._lock:
            return list(self.events)

    # What LM calls report beside their end

    def add_usage(self, call_id: str | None, usage: Mapping[str, Any]) -> None:
        """Usage that a provider billed for the LM call `call_id`. A call that was answered from the cache has none."""
        call = self._calls.get(call_id or "")
        if call is not None:
            call.usage.append(dict(usage))

    def add_history(self, call_id: str | None, entry: Mapping[str, Any]) -> None:
        """The history entry of the LM call `call_id`."""
        call = self._calls.get(call_id or "")
        if call is not None:
            call.history.append(entry)

    # Streams

    def streamed_texts(self) -> dict[str, dict[str, str]]:
        """What was streamed of each predictor's fields so far, by span id and name of the field."""
        texts: dict[str, dict[str, str]] = {}
        for (span_id, name), deltas in list(self._texts.items()):
            texts.setdefault(span_id, {})[name] = "".join(deltas)
        return texts

    def predictor_of(self, lm_call_id: str | None) -> tuple[str, str, Any, Any] | None:
        """Span id, name, adapter and signature of the predictor whose answer an LM call streams.

        None where there is none: the program called the language model itself, or the answer is one of several that
        the predictor asked for (n > 1), of which the first is told.
        """
        call = self._calls.get(lm_call_id or "")
        if call is None or call.parent_call not in self._formats or call.parent_id in self._read:
            return None
        call.first_chunk = time.perf_counter()
        caller = self._caller(call.parent_call)
        adapter, signature = self._formats[call.parent_call]
        return call.parent_id, caller.name if caller else "", adapter, signature

    def token(self, span_id: str, predictor: str, name: str, delta: str) -> None:
        """A piece of text of an output field."""
        if not delta or self._log is None:
            return
        self._texts.setdefault((span_id, name), []).append(delta)
        with self._lock:
            if self._is_closed:
                return
            self._seq += 1
            now = time.time()
            if self.first_token_at is None:
                self.first_token_at = now
            self._log.token(self._seq, now, span_id, predictor, name, delta)

    def settle(self, span_id: str, predictor: str, name: str, value: Any, *, streams: bool) -> None:
        """Tell what a field is in the end: the rest of its deltas where it `streams`, or the whole of its value."""
        sent = "".join(self._texts.get((span_id, name), ()))
        is_streamed = streams and isinstance(value, str) and value != ""
        if sent and not (is_streamed and value.startswith(sent)):
            self._reset(span_id, predictor, name)
            sent = ""
        if is_streamed:
            self.token(span_id, predictor, name, value[len(sent) :])
        else:
            self.emit(FIELD, span_id=span_id, predictor=predictor, field=name, value=value)

    # DSPy's callbacks

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A module is called."""
        kind = type(instance).__name__
        # A module answers for every attribute itself, and for one that it lacks slowly.
        name = getattr(instance, "__dict__", {}).get(PATH_ATTRIBUTE) or kind
        data: dict[str, Any] = {"module": kind}
        is_predictor = isinstance(instance, dspy.Predict)
        if is_predictor and self._payloads:
            data["signature"] = signature_facts(instance.signature)
        self._start("module", call_id, name, inputs, data).is_predictor = is_predictor

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """A module returned or raised. Only now is all known that a predictor's answer holds, native parts included."""
        call = self._calls.get(call_id)
        if call is not None and call.is_predictor and exception is None and self._log is not None:
            self._settle_all(call_id, call, outputs)
        self._formats.pop(call_id, None)
        self._end(call_id, outputs, exception)

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A language model is called."""
        if isinstance(instance, dspy.BaseLM) and "update_history" not in vars(instance):
            instance.update_history = HistoryHook(instance)
        if self._log is not None:
            let_threads_stream()
        model = getattr(instance, "model", type(instance).__name__)
        self.signal.check()
        call = self._open("lm", call_id, model)
        data: dict[str, Any] = {"model": model}
        if self._payloads:
            messages = inputs.get("messages") or [{"role": "user", "content": inputs.get("prompt")}]
            given = {**getattr(instance, "kwargs", {}), **(inputs.get("kwargs") or {})}
            data["messages"] = snapshot(messages)
            data["parameters"] = snapshot(
                {k: v for k, v in given.items() if v is not None and k not in _CLIENT_PARAMETERS}
            )
        self._emit_start(call, data)

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """A language model answered or failed."""
        call = self._calls.get(call_id)
        if call is not None:
            facts = lm_facts(call.name, call.usage, call.history, exception)
            if call.first_chunk is not None:
                facts["first_token_ms"] = round((call.first_chunk - call.started) * 1000, 3)
            self._end(call_id, outputs, exception, data=facts)

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A prompt is written: from here on it is known which adapter and signature the next LM call follows."""
        self.signal.check()
        call_id = ACTIVE_CALL_ID.get()
        self._formats[call_id] = (instance, _signature(inputs))
        caller = self._caller(call_id)
        if caller is not None and caller.span_id in self._unread:
            self._begin_anew(caller)

    def on_adapter_parse_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """An answer is read. Subclasses of adapters are wrapped twice: the inner of two nested calls is passed over."""
        if self._parsing.get(ACTIVE_CALL_ID.get() or "") is not instance:
            self._open("adapter", call_id, type(instance).__name__)
        self._parsing[call_id] = instance

    def on_adapter_parse_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """An answer was read, or could not be."""
        self._parsing.pop(call_id, None)
        call = self._calls.get(call_id)
        if call is None:
            return
        caller = self._caller(call_id)
        if caller is not None and caller.is_predictor:
            (self._read if exception is None else self._unread).add(caller.span_id)
        self._end(call_id, outputs, exception, type_="adapter_parse_end")

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A tool is called."""
        self._start("tool", call_id, getattr(instance, "name", None) or type(instance).__name__, inputs)

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """A tool returned or raised."""
        self._end(call_id, outputs, exception)

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """An evaluation begins. Its inputs, a program and a data set, are not copied."""
        self._start("evaluate", call_id, type(instance).__name__, {})

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """An evaluation ended."""
        self._end(call_id, None, exception)

    def on_compile_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """An optimizer begins."""
        self._start("compile", call_id, type(instance).__name__, {})

    def on_compile_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """An optimizer ended."""
        self._end(call_id, None, exception)

    def on_interpreter_execute_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Code is executed."""
        self._start("interpreter", call_id, type(instance).__name__, {"kwargs": inputs})

    def on_interpreter_execute_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Code was executed."""
        self._end(call_id, outputs, exception)

    def on_interpreter_tool_call_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Executed code calls a tool."""
        name = str(inputs.get("tool_name") or inputs.get("name") or "tool")
        self._start("tool", call_id, name, {"kwargs": inputs})

    def on_interpreter_tool_call_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Executed code's tool returned or raised."""
        self._end(call_id, outputs, exception)

    # What they share

    def _start(
        self, kind: str, call_id: str, name: str, inputs: dict[str, Any], data: dict[str, Any] | None = None
    ) -> _Call:
        self.signal.check()
        call = self._open(kind, call_id, name)
        data = {} if data is None else data
        if self._payloads:
            data["inputs"] = arguments(inputs)
        self._emit_start(call, data)
        return call

    def _open(self, kind: str, call_id: str, name: str) -> _Call:
        parent_call = ACTIVE_CALL_ID.get()
        parent = self._caller(parent_call)
        # A parent that this run never saw is that of an outer run, or none: the run itself stands in.
        parent_id = parent.span_id if parent is not None else self.root_id
        call = _Call(kind, next(self._span_ids), parent_id, parent_call, name, time.perf_counter())
        self._calls[call_id] = call
        return call

    def _emit_start(self, call: _Call, data: dict[str, Any]) -> None:
        self._add(f"{call.kind}_start", call.span_id, call.parent_id, call.name, data)

    def _end(
        self,
        call_id: str,
        outputs: Any,
        exception: BaseException | None,
        type_: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        call = self._calls.get(call_id)
        if call is None:
            return
        data = {} if data is None else data
        data["duration_ms"] = round((time.perf_counter() - call.started) * 1000, 3)
        if exception is not None:
            data |= {"error_type": type(exception).__name__, "error": message_of(exception)}
        elif self._payloads and outputs is not None:
            data["outputs"] = snapshot(outputs)
        self._add(type_ or f"{call.kind}_end", call.span_id, call.parent_id, call.name, data)

    def _caller(self, call_id: str | None) -> _Call | None:
        """The call of that id. An adapter that asks a language model to read an answer acts for its predictor."""
        call = self._calls.get(call_id or "")
        return self._caller(call.parent_call) if call is not None and call.kind == "adapter" else call

    def _settle_all(self, call_id: str, call: _Call, prediction: Any) -> None:
        signature = getattr(getattr(prediction, "completions", None), "signature", None)
        signature = signature or self._formats.get(call_id, (None, None))[1]
        if signature is None or not isinstance(prediction, dspy.Example):
            return
        for name, field_ in signature.output_fields.items():
            if name in prediction:
                value = snapshot(prediction[name])
                self.settle(call.span_id, call.name, name, value, streams=is_text(field_.annotation))

    def _begin_anew(self, caller: _Call) -> None:
        """Another attempt follows an answer that could not be read: what was streamed of that one does not count."""
        self._unread.discard(caller.span_id)
        self._read.discard(caller.span_id)
        for span_id, name in list(self._texts):
            if span_id == caller.span_id:
                self._reset(span_id, caller.name, name)

    def _reset(self, span_id: str, predictor: str, name: str) -> None:
        self._texts.pop((span_id, name), None)
        self.emit(FIELD_RESET, span_id=span_id, predictor=predictor, field=name)


def _signature(inputs: Mapping[str, Any]) -> Any:
    """The signature that an adapter formats. Of a method that is wrapped twice only the bare arguments are told."""
    if "signature" in inputs:
        return inputs["signature"]
    bare = [*inputs.get("args", ()), *inputs.get("kwargs", {}).values()]
    return next((value for value in bare if isinstance(value, type) and issubclass(value, dspy.Signature)), None)
