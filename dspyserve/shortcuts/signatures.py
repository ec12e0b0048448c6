"""The fields of signatures, which DSPy asks for twenty times in a call."""

from __future__ import annotations

from functools import wraps
from typing import Any

import dspy
from dspy.signatures.signature import SignatureMeta


def read_fields_directly() -> None:
    """Take the fields from where pydantic keeps them, without its warnings for those who ask an instance."""
    stock = SignatureMeta._get_fields_with_type
    _ = dspy.Signature.__pydantic_fields__

    @wraps(stock)
    def fields_with_type(cls: Any, field_type: str) -> dict[str, Any]:
        fields = cls.__pydantic_fields__
        return {
            name: each for name, each in fields.items() if each.json_schema_extra["__dspy_field_type"] == field_type
        }

    SignatureMeta._get_fields_with_type = fields_with_type


ALL = (read_fields_directly,)
