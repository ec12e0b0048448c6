"""One span in detail: its chat, its signature, what went in and came out, its parameters, usage and error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from dspyserve.admin import wording
from dspyserve.admin.plain_text import NOTHING, Cut, visible
from dspyserve.admin.traces import json_tree
from dspyserve.admin.traces.chat import Chat, chat
from dspyserve.admin.traces.json_tree import Budget, Node
from dspyserve.admin.traces.payloads import UNREADABLE, Payload
from dspyserve.models import Span

_LONGEST_TRACEBACK = 20_000
"""Characters."""
_REPLY = ("finish_reason", "response_model", "response_id")
"""What an LM call's end tells beside its answer."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the values below it; `address` is where all of them are. What is unreadable nests too deep."""

    title: str
    nodes: list[Node]
    address: str
    is_unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """What a predictor was told to do. The fields are name, type and description."""

    name: str
    instructions: Cut
    instructions_at: str
    inputs: list[tuple[str, str, str]]
    outputs: list[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as the span tells it; the texts may be empty. Where all of them are: `message_at`, `traceback_at`."""

    type: str
    message: Cut = NOTHING
    traceback: Cut = NOTHING
    message_at: str = ""
    traceback_at: str = ""


@dataclass(slots=True)
class Detail:
    """All of a span that the panel shows."""

    span: Span
    facts: list[tuple[str, str]]
    failure: Failure | None = None
    signature: Signature | None = None
    chat: Chat | None = None
    sections: list[Section] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The span's, as it may be shown."""
        return visible(self.span.name)

    @property
    def is_bare(self) -> bool:
        """Whether nothing was stored of what went in and out."""
        return not (self.chat or self.sections or self.signature)


def detail(span: Span, payload: Payload | None) -> Detail:
    """Everything about `span`; without a payload, for those who may not read it, its shape alone."""
    budget = Budget()
    if payload is None:
        return Detail(span, _facts(span, {}), failure_of(span, {}, budget))
    attributes = dict(payload.attributes) if isinstance(payload.attributes, Mapping) else {}
    found = Detail(span, _facts(span, attributes), failure_of(span, attributes, budget))
    found.signature = _signature(attributes, budget)
    found.chat = chat(payload, budget)
    found.sections = list(_sections(span, payload, budget))
    return found


def failure_of(span: Span, attributes: Mapping[str, Any], budget: Budget) -> Failure | None:
    """The error of `span`, of which `attributes` hold the texts; None where there is none."""
    if span.status != Span.Status.ERROR and "error" not in attributes:
        return None
    message, traceback = (str(attributes.get(name) or "") for name in ("error", "traceback"))
    return Failure(
        visible(span.error_type),
        budget.take(message),
        budget.take(traceback, _LONGEST_TRACEBACK),
        _place(attributes, "error"),
        _place(attributes, "traceback"),
    )


def section(title: str, value: Any, address: str, budget: Budget) -> Section | None:
    """A value under a heading; None where there is nothing."""
    if value is UNREADABLE:
        return Section(title, [], address, is_unreadable=True)
    nodes = json_tree.fields(value, address, budget)
    return Section(title, nodes, address) if nodes else None


def _sections(span: Span, payload: Payload, budget: Budget) -> list[Section]:
    is_tool = span.kind == "tool"
    wanted = [(_("Arguments") if is_tool else _("Inputs"), payload.inputs, "inputs")]
    if payload.messages is UNREADABLE:
        wanted.append((_("Messages"), UNREADABLE, "messages"))
    if payload.messages is None or payload.outputs is UNREADABLE:
        wanted.append((_("Result") if is_tool else _("Outputs"), payload.outputs, "outputs"))
    wanted += _attribute_sections(payload)
    return [found for entry in wanted if (found := section(*entry, budget)) is not None]


def _attribute_sections(payload: Payload) -> list[tuple[str, Any, str]]:
    if not isinstance(payload.attributes, Mapping):
        return [(_("Attributes"), payload.attributes, "attributes")]
    titles = {"partial_outputs": _("Streamed before the error"), "parameters": _("Parameters")}
    shown = {"error", "traceback", "module", "signature", *_REPLY}
    if not isinstance(payload.attributes.get("signature"), Mapping):
        shown.discard("signature")
    return [
        (titles.get(name, visible(str(name)[:200])), value, f"attributes.{position}")
        for position, (name, value) in enumerate(payload.attributes.items())
        if name not in shown
    ]


def _signature(attributes: Mapping[str, Any], budget: Budget) -> Signature | None:
    told = attributes.get("signature")
    if not isinstance(told, Mapping):
        return None
    return Signature(
        visible(str(told.get("name", ""))[:200]),
        budget.take(str(told.get("instructions", ""))),
        f"{_place(attributes, 'signature')}.{list(told).index('instructions') if 'instructions' in told else 0}",
        _signature_fields(told.get("inputs")),
        _signature_fields(told.get("outputs")),
    )


def _signature_fields(fields: Any) -> list[tuple[str, str, str]]:
    entries = [entry for entry in fields if isinstance(entry, Mapping)] if isinstance(fields, list) else []
    return [
        (_told(entry, "name"), _told(entry, "type"), _told(entry, "description"))
        for entry in entries[: json_tree.MAX_CHILDREN]
    ]


def _told(entry: Mapping[str, Any], name: str) -> str:
    return visible(str(entry.get(name, ""))[:1_000])


def _place(attributes: Mapping[str, Any], name: str) -> str:
    return f"attributes.{list(attributes).index(name)}" if name in attributes else ""


def _facts(span: Span, attributes: Mapping[str, Any]) -> list[tuple[str, str]]:
    tokens = wording.tokens(span.input_tokens, span.output_tokens)
    is_lm = span.kind == "lm"
    facts = [
        (_("Duration"), wording.duration(span.duration_ms)),
        (_("First token"), "" if span.first_token_ms is None else wording.duration(span.first_token_ms)),
        (_("Tokens"), tokens if is_lm else ""),
        (_("Cached tokens"), str(span.cached_tokens) if span.cached_tokens else ""),
        (_("Cost"), wording.cost(span.cost) if is_lm else ""),
        (_("Model"), span.model if span.model != span.name else ""),
        (_("Answered by"), _reply(attributes, "response_model", but=span.model)),
        (_("Finish reason"), _reply(attributes, "finish_reason")),
        (_("Response"), _reply(attributes, "response_id")),
        (_("Module"), _reply(attributes, "module", but=span.name)),
        (_("Span"), span.span_id),
    ]
    return [(name, visible(value)) for name, value in facts if value]


def _reply(attributes: Mapping[str, Any], name: str, but: str = "") -> str:
    value = attributes.get(name)
    return "" if value in (None, but) else str(value)[:200]
