"""Signatures as plain data: what a predictor was told to do, kept with its span."""

from __future__ import annotations

import weakref
from typing import Any

from dspy.adapters.utils import get_annotation_name

from dspyserve.events import Constant

_known: weakref.WeakKeyDictionary[type, Constant] = weakref.WeakKeyDictionary()


def signature_facts(signature: Any) -> Constant:
    """Name, instructions and fields of `signature`. The fields are lists, for they have an order that objects lose."""
    facts = _known.get(signature)
    if facts is None:
        facts = _known[signature] = Constant(_read(signature))
    return facts


def _read(signature: Any) -> dict[str, Any]:
    facts = {"name": signature.__name__, "instructions": signature.instructions}
    try:
        return {**facts, "inputs": _fields(signature.input_fields), "outputs": _fields(signature.output_fields)}
    except Exception:  # noqa: BLE001 - an annotation may be anything, and its text may raise; the span must not be lost
        return facts


def _fields(fields: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "name": name,
            "type": get_annotation_name(field.annotation),
            "description": _description(name, (field.json_schema_extra or {}).get("desc")),
        }
        for name, field in fields.items()
    ]


def _description(name: str, given: Any) -> str:
    # Without one DSPy writes the name itself, in braces.
    return "" if given in (None, f"${{{name}}}") else str(given)
