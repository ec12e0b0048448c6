"""The language model that programs are served with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
from dspy.clients import base_lm, execution
from dspy.utils.callback import with_callbacks

_acall: Callable[..., Any] = dspy.BaseLM.acall.__wrapped__


class ServedLM(dspy.LM):
    """`dspy.LM`, whose async calls are prepared where they are made if they hold texts alone.

    DSPy prepares them in a thread, since images and the like may be files that have to be read.
    """

    def __copy__(self) -> ServedLM:
        """A copy that shares what the original holds; DSPy looks for slots in all classes, of which there are none."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    @with_callbacks  # type: ignore[untyped-decorator]
    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As `dspy.LM.acall`."""
        if not _are_texts(prompt, messages) or "request" in kwargs:
            return await _acall(self, prompt, messages=messages, **kwargs)
        call = execution.prepare(self, prompt, messages, kwargs, asynchronous=True)
        base_lm.warn_openai_messages(self, messages)
        return execution.finalize(self, call, await execution.aexecute(self, call))


def _are_texts(prompt: Any, messages: Any) -> bool:
    if not isinstance(prompt, str | type(None)) or not isinstance(messages, list | type(None)):
        return False
    return all(isinstance(message, dict) and type(message.get("content")) is str for message in messages or ())
