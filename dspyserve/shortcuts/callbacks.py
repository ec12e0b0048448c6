"""How DSPy finds what to tell callbacks, and which of their methods to call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from types import FunctionType
from typing import Any

import dspy
import uuid_utils
from dspy.utils import callback as dspy_callback

from dspyserve.shortcuts.memory import remember
from dspyserve.shortcuts.module_view import ModuleView
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


def bind_arguments_directly() -> None:
    """Name the arguments of a call by what is remembered of its function; what does not fit is left to `inspect`."""
    stock = inspect.getcallargs
    known: dict[Any, _Parameters] = {}

    @wraps(stock)
    def getcallargs(func: Any, /, *positional: Any, **named: Any) -> dict[str, Any]:
        if type(func) is not FunctionType:
            return stock(func, *positional, **named)
        parameters = known.get(func.__code__)
        if parameters is None or not parameters.are_of(func):
            parameters = _Parameters(func)
            remember(known, func.__code__, parameters)
        found = parameters.bind(positional, named)
        return stock(func, *positional, **named) if found is None else found

    dspy_callback.inspect = ModuleView(dspy_callback.inspect, getcallargs=getcallargs)


class _Parameters:
    """Those of a function, which is known by its code; others may share that, with other defaults."""

    def __init__(self, func: FunctionType) -> None:
        spec = inspect.getfullargspec(func)
        self._made_of = func.__defaults__, func.__dict__.get("__signature__")
        self._names = spec.args
        self._all = frozenset([*spec.args, *spec.kwonlyargs])
        given = spec.defaults or ()
        self._defaults = dict(zip(spec.args[len(spec.args) - len(given) :], given, strict=True))
        self._defaults |= spec.kwonlydefaults or {}
        self._required = self._all - self._defaults.keys()
        self._more, self._others = spec.varargs, spec.varkw

    def are_of(self, func: FunctionType) -> bool:
        """Whether they are those of `func`, whose code is the same."""
        return self._made_of[0] is func.__defaults__ and self._made_of[1] is func.__dict__.get("__signature__")

    def bind(self, positional: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any] | None:
        """The values by parameter, in the order of `inspect.getcallargs`; None where they do not fit."""
        bound = dict(zip(self._names, positional, strict=False))
        if self._more is not None:
            bound[self._more] = positional[len(self._names) :]
        elif len(positional) > len(self._names):
            return None
        others: dict[str, Any] = {}
        if self._others is not None:
            bound[self._others] = others
        for name, value in named.items():
            if name in bound:
                return None
            if name in self._all:
                bound[name] = value
            elif self._others is not None:
                others[name] = value
            else:
                return None
        if not self._required <= bound.keys():
            return None
        for name, value in self._defaults.items():
            bound.setdefault(name, value)
        return bound


def number_calls_without_the_system() -> None:
    """Take random ids from a generator of the process: those of the system cost a call of it, in which other threads
    go on.
    """
    _ = dspy_callback.uuid.uuid4
    dspy_callback.uuid = ModuleView(dspy_callback.uuid, uuid4=uuid_utils.uuid4)


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


ALL = (remember_signatures, bind_arguments_directly, number_calls_without_the_system, remember_handlers)
