"""How DSPy finds what to tell callbacks, and which of their methods to call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import dspy
from dspy.utils import callback as dspy_callback

from dspyserve.shortcuts.served_lm import ServedLM


class _Names:
    """A callback that has for every method its name."""

    def __getattr__(self, name: str) -> str:
        return name


def remember_signatures() -> None:
    """Let `inspect` find the signatures of DSPy's own observed methods, which it otherwise puts together every time."""
    modules, adapters = (dspy.Module, dspy.Predict), (dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter)
    for owner in (*modules, *adapters, dspy.Adapter, dspy.BaseLM, ServedLM, dspy.Tool):
        for name in ("__call__", "acall", "format", "parse"):
            function = getattr(vars(owner).get(name), "__wrapped__", None)
            if function is not None:
                function.__signature__ = inspect.signature(function)


def remember_handlers() -> None:
    """Choose a callback's method once for every kind of object and function."""
    for name in ("_get_on_start_handler", "_get_on_end_handler"):
        setattr(dspy_callback, name, _by_kind(getattr(dspy_callback, name)))


def _by_kind(choose: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[tuple[Any, ...], str] = {}
    names: Any = _Names()

    @wraps(choose)
    def handler(callback: Any, instance: Any, fn: Any) -> Any:
        key = (type(instance), getattr(instance, "supports_decision_requests", False) is True, fn.__name__)
        name = known.get(key)
        if name is None:
            name = known[key] = choose(names, instance, fn)
        return getattr(callback, name)

    return handler


ALL = (remember_signatures, remember_handlers)
