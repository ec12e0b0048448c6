"""The parts of a program, wherever they are: in attributes, lists, dicts and other modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import dspy

Part = TypeVar("Part")


def submodules(program: dspy.Module) -> list[dspy.Module]:
    """The program and every module in it. `named_predictors()` would skip compiled modules and nested dicts."""
    return list(_find(program, dspy.Module))


def tools(program: dspy.Module) -> list[dspy.Tool]:
    """Every tool that a part of the program holds. ReAct's own `finish` does nothing and does not count."""
    return [tool for tool in _find(program, dspy.Tool) if tool.name != "finish"]


def language_models(program: dspy.Module) -> list[dspy.BaseLM]:
    """Every language model that is pinned on a predictor or held by a part of the program."""
    return list(_find(program, dspy.BaseLM))


def _find(root: Any, kind: type[Part]) -> Iterator[Part]:
    seen: set[int] = set()
    pending = [root]
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, kind):
            yield value
        pending.extend(_children(value))


def _children(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, dspy.Module):
        return list(vars(value).values())
    return []
