"""How the demo engine acts in the steps of an agent: each tool once, in order, then the end."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dspyserve.programs.demo_answers import Source, answer, quoted
from dspyserve.programs.demo_extraction import arithmetic
from dspyserve.programs.demo_prompt import Schema, Task

REACT = frozenset(["next_thought", "next_tool_name", "next_tool_args"])
"""The output fields of a step of `dspy.ReAct`."""

REACT_V2 = frozenset(["next_thought", "tool_calls"])
"""The output fields of a step of `dspy.ReActV2`."""

Arguments = Mapping[str, Schema]
"""A tool's arguments."""

# What `str(dspy.Tool)` gives; ReAct numbers it in its instructions.
_TOOL = re.compile(
    r"^\s*(?:\(\d+\) )?(\S+?)(?:, whose description is <desc>.*</desc>)?\. It takes arguments (\{.*\})\.$", re.MULTILINE
)
_TRAJECTORY = re.compile(
    r"(?:\[\[ ## |<)(tool_name|observation)_(\d+)(?: ## \]\]|>)\n(.*?)(?=\n\n\[\[ ## |\n</\1_\2>|\Z)", re.DOTALL
)

Returned = list[tuple[str, str]]
"""The tools that were called, with what they returned."""


def answer_or_act(task: Task) -> dict[str, Any]:
    """The next step, where `task` is a step of an agent, else its answer."""
    returned = _returned(task)
    observations = [f"The tool {tool} returned {quoted(value.rstrip('.'))}." for tool, value in returned]
    asked = {name: text for name, text in task.inputs.items() if name not in ("tools", "trajectory")}
    if task.outputs.keys() >= REACT:
        return _react(Source(inputs=asked), _tools(task.instructions), {tool for tool, _ in returned})
    if task.outputs.keys() >= REACT_V2:
        source = Source(inputs=asked, observations=observations)
        return _react_v2(source, _tools("\n".join(_json_list(task.inputs.get("tools", "")))), bool(returned))
    return answer(asked, task.outputs, observations)


def _react(source: Source, tools: Mapping[str, Arguments], used: set[str]) -> dict[str, Any]:
    call = next(_calls(source, tools, without={*used, "finish"}), None)
    return {
        "next_thought": _thought([call] if call else []),
        "next_tool_name": call["name"] if call else "finish",
        "next_tool_args": call["args"] if call else {},
    }


def _react_v2(source: Source, tools: Mapping[str, Arguments], ends: bool) -> dict[str, Any]:
    calls = [] if ends else list(_calls(source, tools, without={"submit"}))
    outputs = tools.get("submit", {})
    final = {"name": "submit", "args": {name: source.value(name, schema) for name, schema in outputs.items()}}
    return {"next_thought": _thought(calls), "tool_calls": {"tool_calls": calls or [final]}}


def _thought(calls: Sequence[Mapping[str, Any]]) -> str:
    if calls:
        return f"Demo thought: the demo engine calls every tool once, now {' and '.join(c['name'] for c in calls)}."
    return "Demo thought: every tool that fits the inputs was called, so this is the end."


def _calls(source: Source, tools: Mapping[str, Arguments], without: set[str]) -> Iterator[dict[str, Any]]:
    """A call of every tool whose arguments the question can fill."""
    for name, arguments in tools.items():
        filled = {key: _argument(source, key, schema) for key, schema in arguments.items() if "default" not in schema}
        if name not in without and None not in filled.values():
            yield {"name": name, "args": filled}


def _argument(source: Source, name: str, schema: Schema) -> Any:
    """A value for a tool's required argument; None for an expression where the question holds none."""
    if name == "expression":
        return arithmetic(source.text)
    if schema.get("type") == "string" and not schema.keys() & {"enum", "const", "format"}:
        return (source.found(name) or [source.question])[0]
    return source.value(name, schema)


def _tools(descriptions: str) -> dict[str, Arguments]:
    """The described tools' arguments, as JSON Schemas by name."""
    return {name: _literal(arguments) for name, arguments in _TOOL.findall(descriptions)}


def _literal(arguments: str) -> Arguments:
    try:
        value = ast.literal_eval(arguments)
    except (ValueError, SyntaxError):
        return {}
    return value if isinstance(value, dict) else {}


def _returned(task: Task) -> Returned:
    """What the agent's steps left, in ReAct's trajectory or in the results that ReActV2's messages hold."""
    fields: dict[str, dict[str, str]] = {"tool_name": {}, "observation": {}}
    for kind, number, text in _TRAJECTORY.findall(task.inputs.get("trajectory", "")):
        fields[kind][number] = text.strip()
    names, observations = fields["tool_name"], fields["observation"]
    steps = [(name, observations.get(number, "")) for number, name in names.items() if name != "finish"]
    return steps + [result for step in task.steps for result in _results(step)]


def _results(message: str) -> Returned:
    found = [result for text in message.split('{"tool_call_results": ')[1:] for result in _json_list(text)]
    return [(str(result["name"]), str(result["value"])) for result in found if {"name", "value"} <= result.keys()]


def _json_list(text: str) -> list[Any]:
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return []
    return value if isinstance(value, list) else []
