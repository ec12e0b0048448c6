"""A module as one other module sees it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


class ModuleView(ModuleType):
    """`module`, with some functions in place of its own for whoever has this instead."""

    def __init__(self, module: ModuleType, **functions: Callable[..., Any]) -> None:
        super().__init__(module.__name__, module.__doc__)
        self._module = module
        vars(self).update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
