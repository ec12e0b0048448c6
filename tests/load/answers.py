"""The text that the provider answers: every field that the prompt asks for, in the format that it asks for.

Strings echo who asked what, so that a mix-up between concurrent executions shows in the answer itself.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import orjson

from tests.load.directives import Directives
from tests.load.openai_wire import ChatRequest
from tests.load.prompts import (
    Format,
    OutputField,
    Task,
    Tool,
    first_input,
    holds_observation,
    read_task,
    with_schema,
)
from tests.load.schemas import Sampler

GARBAGE = "I would rather talk about the weather today."
"""No field, no JSON and no element: every adapter refuses it."""

_PROMPT_LENGTH = 200  # of a whole message, echoed when it has no input field
_STEP = ("next_thought", "next_tool_name", "next_tool_args")
_FINISH = "finish"
_PIECE = re.compile(r"\s*\S+|\s+")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_answer(request: ChatRequest, directives: Directives, choice: int = 0) -> str:
    """The completion of one choice; the text of choices after the first says which one it is."""
    if directives.garbage:
        return GARBAGE
    task = _task(request)
    task = replace(task, fields=task.fields[: directives.fields])
    text = _text(request, directives, task, choice)
    values = _values(task, text, request.last_user)
    return _WRITERS[task.format](task, values, request)


def pieces(text: str, size: int | None) -> Iterator[str]:
    """The chunks of a stream: words with the space before them, or so many characters."""
    if size is None:
        return (found[0] for found in _PIECE.finditer(text))
    return (text[start : start + size] for start in range(0, len(text), size))


def _task(request: ChatRequest) -> Task:
    wanted = request.response_format or {}
    task = read_task(request.system)
    if wanted.get("type") == "json_schema":
        return with_schema(task, wanted["json_schema"]["schema"])
    return replace(task, format=Format.JSON) if wanted.get("type") == "json_object" else task


def _text(request: ChatRequest, directives: Directives, task: Task, choice: int) -> Callable[[str], str]:
    """Makes the text of the string field at a path."""
    if directives.answer is not None:
        answer = directives.answer
        return lambda path: answer
    if directives.words is not None:
        count = directives.words
        return lambda path: _many_words(path, count)
    echo = _echo(request, task) + (f" | choice={choice}" if choice else "")
    return lambda path: f"{path} | {echo}"


def _echo(request: ChatRequest, task: Task) -> str:
    message = request.last_user
    prompt = first_input(task, message) or message[:_PROMPT_LENGTH]
    prompt = " ".join(prompt.splitlines())
    return f"model={request.model} | key={request.api_key} | temperature={request.temperature} | prompt={prompt}"


@lru_cache(maxsize=64)
def _many_words(path: str, count: int) -> str:
    return " ".join(f"{path}_{number}" for number in range(count))


def _values(task: Task, text: Callable[[str], str], message: str) -> dict[str, Any]:
    values = {field.name: _value(field, text) for field in task.fields}
    if tuple(values) == _STEP and task.tools:
        tool = _next_tool(task.tools, holds_observation(message))
        sampler = Sampler(text=text)
        arguments = {name: sampler.value(schema, name) for name, schema in tool.arguments.items()}
        values |= {"next_tool_name": tool.name, "next_tool_args": arguments}
    return values


def _value(field: OutputField, text: Callable[[str], str]) -> Any:
    return Sampler(text=text, definitions=field.schema.get("$defs", {})).value(field.schema, field.name)


def _next_tool(tools: tuple[Tool, ...], observed: bool) -> Tool:
    """The first tool, and `finish` once there is an observation."""
    finish = Tool(name=_FINISH, arguments={})
    return finish if observed else next((tool for tool in tools if tool.name != _FINISH), finish)


def _write_chat(task: Task, values: dict[str, Any], request: ChatRequest) -> str:
    sections = [f"[[ ## {field.name} ## ]]\n{_plain(field, values[field.name])}" for field in task.fields]
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def _write_json(task: Task, values: dict[str, Any], request: ChatRequest) -> str:
    """Compact under a schema, as OpenAI's structured outputs are; indented as models write it otherwise."""
    strict = (request.response_format or {}).get("type") == "json_schema"
    return orjson.dumps(values, option=0 if strict else orjson.OPT_INDENT_2).decode()


def _write_xml(task: Task, values: dict[str, Any], request: ChatRequest) -> str:
    return "\n\n".join(_xml_field(field, values[field.name]) for field in task.fields)


def _write_plain(task: Task, values: dict[str, Any], request: ChatRequest) -> str:
    return "\n".join(values.values())


_WRITERS: dict[Format, Callable[[Task, dict[str, Any], ChatRequest], str]] = {
    Format.CHAT: _write_chat,
    Format.JSON: _write_json,
    Format.XML: _write_xml,
    Format.PLAIN: _write_plain,
}


def _plain(field: OutputField, value: Any) -> str:
    """A value as text: Python's True and False, JSON for the rest."""
    if isinstance(value, str) and field.bare:
        return value
    return str(value) if isinstance(value, bool) else orjson.dumps(value).decode()


def _xml_field(field: OutputField, value: Any) -> str:
    # ReAct asks for JSON in its arguments whatever the adapter, and only JSON keeps their types.
    if field.nested and field.name != "next_tool_args":
        return _xml_element(field.name, value)
    return f"<{field.name}>\n{_xml_text(_plain(field, value))}\n</{field.name}>"


def _xml_element(tag: str, value: Any, attributes: str = "") -> str:
    if isinstance(value, list):
        content = "".join(_xml_element("item", each) for each in value)
    elif isinstance(value, dict):
        content = "".join(_xml_entry(name, each) for name, each in value.items())
    else:
        content = "" if value is None else _xml_text(str(value))
    return f"<{tag}{attributes}>{content}</{tag}>"


def _xml_entry(name: str, value: Any) -> str:
    return _xml_element(name, value) if name.isidentifier() else _xml_element("entry", value, f" key={quoteattr(name)}")


def _xml_text(text: str) -> str:
    return _NOT_XML.sub(" ", escape(text))
