"""Whether a program runs on the event loop or in a thread."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import dspy

from dspyserve.errors import RegistrationError
from dspyserve.programs.parts import submodules, tools

Mode = Literal["thread", "async"]


def execution_mode(program: dspy.Module, wanted: str = "auto") -> Mode:
    """`async` for a native-async program, `thread` for every other.

    The first class in the MRO that defines `aforward` or `forward` decides: `hasattr` would be fooled by an inherited
    `aforward` that bypasses an overridden `forward`. A program with a synchronous tool, or with a part that is not
    native-async, belongs in a thread, because it would stop the event loop.

    Raises:
        RegistrationError: `forward` is a coroutine function, or `async` is wanted of a program without `aforward`.
    """
    own = _defines(program)
    if "forward" in own and inspect.iscoroutinefunction(inspect.unwrap(own["forward"])):
        raise RegistrationError(f"{type(program).__name__}.forward is a coroutine function: name it aforward")
    native = "aforward" in own
    if wanted == "async" and not native:
        raise RegistrationError(f"{type(program).__name__} has no aforward of its own: it cannot run on the event loop")
    if wanted != "auto":
        return "async" if wanted == "async" else "thread"
    return "async" if native and not _blocks(program) else "thread"


def _defines(program: dspy.Module) -> dict[str, Any]:
    for cls in type(program).__mro__:
        found = {name: vars(cls)[name] for name in ("forward", "aforward") if name in vars(cls)}
        if found:
            return found
    raise RegistrationError(f"{type(program).__name__} defines neither forward nor aforward")


def _blocks(program: dspy.Module) -> bool:
    if any(not inspect.iscoroutinefunction(_function(tool)) for tool in tools(program)):
        return True
    own = type(program).__module__.startswith("dspy.")
    # Only DSPy's own modules call every part on the event loop; what a user's aforward does with its parts is its own.
    return own and any("aforward" not in _defines(part) for part in submodules(program) if part is not program)


def _function(tool: dspy.Tool) -> Any:
    function = tool.func
    # A callable object is as asynchronous as its class's __call__.
    return function if inspect.isroutine(function) else type(function).__call__
