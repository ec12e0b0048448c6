"""Outputs and streams as people read them in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import OutputWrapper
from django.core.management.color import Style

from dspyserve.encoding import encode
from dspyserve.events import FIELD_RESET, RUN_END, TOKEN, Event


class Terminal:
    """Writes headings, texts and the last line of a run."""

    def __init__(self, out: OutputWrapper, style: Style) -> None:
        self._out = out
        self._style = style

    def heading(self, title: str) -> None:
        """The name of what follows."""
        self._out.write(self._style.MIGRATE_HEADING(title))

    def text(self, text: str, *, ending: str = "\n") -> None:
        """A text, or a piece of one, at once."""
        self._out.write(text, ending=ending)
        self._out.flush()

    def outputs(self, outputs: Mapping[str, Any]) -> None:
        """Every output field under its heading."""
        for name, value in outputs.items():
            self.heading(name)
            self.text(value if isinstance(value, str) else encode(value).decode())

    def summary(self, result: Mapping[str, Any]) -> None:
        """The last line: trace, duration, tokens, cost."""
        usage, cost = result["usage"], result["cost"]
        parts = [
            f"trace {result['trace_id']}" + ("" if result["trace_stored"] else " (not stored)"),
            f"{result['duration_ms']:.0f} ms",
            f"{usage.get('input_tokens', '?')} + {usage.get('output_tokens', '?')} tokens",
            "cost unknown" if cost is None else f"${cost:.6f}",
        ]
        self._out.write(self._style.HTTP_INFO(" · ".join(parts)))


class StreamPrinter:
    """Text deltas, a heading for each field, one predictor at a time.

    What other predictors say meanwhile, in threads of the program, waits until the one that is shown is done.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._shown: str | None = None
        self._field: tuple[str | None, str] | None = None
        self._waiting: dict[str | None, list[Event]] = {}
        self._ended: set[str | None] = set()
        self._texts: dict[tuple[str | None, str], str] = {}

    def show(self, event: Event) -> None:
        """Print what `event` adds."""
        if event.type in (TOKEN, FIELD_RESET):
            self._remember(event)
            self._shown = self._shown or event.span_id
            if event.span_id == self._shown:
                self._print(event)
            else:
                self._waiting.setdefault(event.span_id, []).append(event)
        elif event.is_terminal:
            self._finish(event)
        elif event.type.endswith("_end"):
            self._ended.add(event.span_id)
            if event.span_id == self._shown:
                self._show_next()

    def _remember(self, event: Event) -> None:
        key = (event.span_id, event.data["field"])
        before = self._texts.get(key, "") if event.type == TOKEN else ""
        self._texts[key] = before + event.data.get("delta", "")

    def _print(self, event: Event) -> None:
        field = (event.span_id, event.data["field"])
        if field != self._field or event.type == FIELD_RESET:
            self._end_line()
            again = " (again)" if event.type == FIELD_RESET else ""
            self._terminal.heading(".".join(filter(None, (event.data["predictor"], event.data["field"]))) + again)
            self._field = field
        self._terminal.text(event.data.get("delta", ""), ending="")

    def _show_next(self) -> None:
        self._shown = None
        while self._waiting and self._shown is None:
            span_id = next(iter(self._waiting))
            for event in self._waiting.pop(span_id):
                self._print(event)
            self._shown = None if span_id in self._ended else span_id

    def _finish(self, event: Event) -> None:
        while self._waiting:
            self._show_next()
        self._end_line()
        if event.type == RUN_END:
            texts = {(name, text) for (_, name), text in self._texts.items()}
            rest = {k: v for k, v in event.data["outputs"].items() if not (isinstance(v, str) and (k, v) in texts)}
            self._terminal.outputs(rest)
            self._terminal.summary({**event.data, "trace_id": event.trace_id})

    def _end_line(self) -> None:
        if self._field is not None:
            self._terminal.text("")
            self._field = None
