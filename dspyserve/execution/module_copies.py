"""Deep copies of modules, as `copy.deepcopy` makes them, with less to do: every execution has one."""

from __future__ import annotations

import copy
import copyreg
from functools import cache
from typing import Any, Final

import dspy

_SHARED: Final = frozenset({str, int, float, bool, type(None)})
"""Types whose values cannot change: `copy.deepcopy` gives them back."""
_CONTAINERS: Final = frozenset({list, dict, tuple})
_STOCK: Final = ("__getstate__", "__setstate__", "__reduce__", "__reduce_ex__")
_OTHER: Final = ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__slots__")
_OWN: Final = ("history", "callbacks")
"""What `dspy.Module.__getstate__` leaves behind, and `__setstate__` makes anew."""


def deep_copy(module: dspy.Module, memo: dict[int, Any]) -> dspy.Module:
    """A copy of `module` and everything in it, but for what `memo` knows by its id.

    A module that says itself how it is copied is copied that way.
    """
    kind: Any = type(module)
    if not _is_plain(kind):
        return copy.deepcopy(module, memo)
    copied = memo[id(module)] = object.__new__(kind)
    # A module answers for every attribute itself, and slowly.
    given, state = object.__getattribute__(module, "__dict__"), object.__getattribute__(copied, "__dict__")
    for name, value in given.items():
        if name not in _OWN:
            state[name] = value if type(value) in _SHARED else _copied(value, memo)
    state |= {"history": [], "callbacks": []}
    return copied


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if issubclass(kind, type):
        return value
    if kind in _CONTAINERS and not value and id(value) not in memo:
        memo[id(value)] = empty = kind()
        return empty
    if isinstance(value, dspy.Module) and id(value) not in memo:
        return deep_copy(value, memo)
    return copy.deepcopy(value, memo)


@cache
def _is_plain(kind: type) -> bool:
    """Whether `copy.deepcopy` would do nothing but what is done here."""
    if kind in copyreg.dispatch_table or getattr(kind, "__new__", None) is not object.__new__:
        return False
    own = [name for parent in kind.__mro__ if parent not in (object, dspy.Module) for name in vars(parent)]
    return not {*own} & {*_STOCK, *_OTHER} and not any(hasattr(dspy.Module, name) for name in _OTHER)
