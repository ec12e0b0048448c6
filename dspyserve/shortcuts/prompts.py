"""How adapters write prompts."""

from __future__ import annotations

from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

import dspy
from dspy.adapters import utils as adapter_utils


def pass_texts() -> None:
    """Give texts to prompts as they are, without making a pydantic type for each: it would give the same."""
    serialize = adapter_utils.serialize_for_json

    @wraps(serialize)
    def serialize_for_json(value: Any) -> Any:
        return value if type(value) is str else serialize(value)

    adapter_utils.serialize_for_json = serialize_for_json


def remember_system_messages(adapter: dspy.Adapter) -> dspy.Adapter:
    """Let `adapter`, one of DSPy's own kinds, write the system message of a signature once."""
    if type(adapter) not in (dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter):
        return adapter
    write = adapter.format_system_message
    known: WeakKeyDictionary[type[dspy.Signature], str] = WeakKeyDictionary()

    def format_system_message(signature: type[dspy.Signature]) -> str:
        text = known.get(signature)
        if text is None:
            text = known[signature] = write(signature)
        return text

    adapter.format_system_message = format_system_message  # type: ignore[method-assign]
    return adapter


ALL = (pass_texts,)
