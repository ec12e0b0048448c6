"""Between chat completions and programs: which programs can be talked to, and how messages become inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dspy
from pydantic_core import PydanticUndefined

from dspyserve.errors import Fault, InvalidInput
from dspyserve.programs.dspy_types import contains
from dspyserve.programs.options import RunOptions, run_options
from dspyserve.programs.schema import Field, ProgramSchema
from dspyserve.programs.served import ServedProgram

REASONING: Final = "reasoning"
_DIRECT: Final = (dspy.Predict, dspy.ChainOfThought, dspy.ReAct)
"""Programs that answer with one call of one predictor, so that its tokens are the answer's."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """How a program is talked to: the fields that take the last message, those before it, and that give the answer."""

    text: str
    history: str | None
    answer: str
    reasoning: bool
    is_direct: bool


def conversation(program: ServedProgram) -> Conversation | None:
    """How `program` is talked to; None where it has not one text input, maybe with a history, and one text output."""
    schema = program.schema
    histories = [field for field in schema.inputs if contains(field.type, dspy.History)]
    others = [field for field in schema.inputs if field not in histories]
    texts = [field for field in others if field.type is str]
    answers = [field for field in schema.outputs if field.type is str and field.name != REASONING]
    rest = [field for field in schema.outputs if field not in answers and field.name != REASONING]
    if len(texts) != 1 or len(answers) != 1 or len(histories) > 1 or rest or _needed(others, texts):
        return None
    return Conversation(
        text=texts[0].name,
        history=histories[0].name if histories else None,
        answer=answers[0].name,
        reasoning=_has_reasoning(schema),
        is_direct=type(program.template) in _DIRECT,
    )


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request for a chat completion, as far as a program can follow it."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    stream: bool
    include_usage: bool
    options: RunOptions


def read_chat(body: Mapping[str, Any]) -> ChatRequest:
    """The request in `body`. Sampling parameters are passed over: the program's language model has its own.

    Raises:
        InvalidInput: the model or the messages are missing or of another shape.
    """
    faults = []
    model, messages = body.get("model"), body.get("messages")
    if not isinstance(model, str):
        faults.append(Fault("/model", "The name of a program is needed."))
    if not _are_messages(messages):
        faults.append(Fault("/messages", "A list of messages, the last of them a user's, is needed."))
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        faults.append(Fault("/stream", "true or false is needed."))
    if body.get("n") not in (None, 1):
        faults.append(Fault("/n", "Only one choice can be had."))
    if faults:
        raise InvalidInput(faults)
    stream_options = body.get("stream_options") or {}
    include_usage = isinstance(stream_options, Mapping) and stream_options.get("include_usage") is True
    return ChatRequest(str(model), list(messages or []), stream, include_usage, _options(body))


def _options(body: Mapping[str, Any]) -> RunOptions:
    try:
        return run_options({"session_id": body.get("user"), "metadata": body.get("metadata")})
    except InvalidInput as error:
        ours, theirs = "/session_id", "/user"
        raise InvalidInput(
            [Fault(fault.pointer.replace(ours, theirs), fault.message) for fault in error.faults]
        ) from None


def inputs_of(request: ChatRequest, spoken: Conversation) -> dict[str, Any]:
    """The program's inputs: the last message, and the turns before it where the program declares a history."""
    inputs: dict[str, Any] = {spoken.text: _text(request.messages[-1])}
    if spoken.history is not None:
        inputs[spoken.history] = {"messages": _turns(request.messages[:-1], spoken)}
    return inputs


def usage_of(usage: Mapping[str, int]) -> dict[str, Any] | None:
    """Tokens as the protocol counts them; None where nobody told."""
    if not usage:
        return None
    prompt, completion = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
    cached = {"prompt_tokens_details": {"cached_tokens": usage["cached_tokens"]}} if "cached_tokens" in usage else {}
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **cached}


def error_body(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """An error in the protocol's shape."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _needed(fields: list[Field], texts: list[Field]) -> bool:
    return any(field.default is PydanticUndefined for field in fields if field not in texts)


def _has_reasoning(schema: ProgramSchema) -> bool:
    return any(field.name == REASONING for field in schema.outputs)


def _are_messages(messages: Any) -> bool:
    if not isinstance(messages, list) or not messages:
        return False
    if not all(isinstance(message, Mapping) and isinstance(message.get("role"), str) for message in messages):
        return False
    return messages[-1]["role"] == "user" and bool(_text(messages[-1]))


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") == "text"]
    return "\n".join(text for text in texts if isinstance(text, str))


def _turns(messages: Sequence[Mapping[str, Any]], spoken: Conversation) -> list[dict[str, str]]:
    """Pairs of question and answer; what stands alone is a turn of its own, and system messages have no place."""
    turns: list[dict[str, str]] = []
    for message in messages:
        if message["role"] == "user":
            turns.append({spoken.text: _text(message)})
        elif message["role"] == "assistant":
            if turns and spoken.answer not in turns[-1]:
                turns[-1][spoken.answer] = _text(message)
            else:
                turns.append({spoken.answer: _text(message)})
    return turns
