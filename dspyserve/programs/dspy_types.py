"""DSPy's own types as JSON: what clients send for them, what they get, and how both are published.

DSPy 3.4 builds all of them from values alone: an address is handed to the provider, never fetched, and a local path is
never opened (`dspy/adapters/types`). What it would pass on unseen, such as a path in place of data, is refused here.
"""

from __future__ import annotations

import base64
import binascii
import logging
import types
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Final, Union, get_args, get_origin

import dspy
import pydantic
from dspy.adapters.types.base_type import Type
from dspy.experimental import Document
from pydantic_core import PydanticSerializationError, to_jsonable_python

logger = logging.getLogger(__name__)

_STRING: Final = {"type": "string"}
_OPTIONAL_STRING: Final = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
_DATA_URI: Final = {"type": "string", "pattern": "^data:"}


def _object(description: str, required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_CALL: Final = _object(
    "One call of a tool.",
    ("name", "args"),
    id=_OPTIONAL_STRING,
    name=_STRING,
    args={"type": "object", "additionalProperties": True},
)
_OBJECTS: Final[dict[type[pydantic.BaseModel], dict[str, Any]]] = {
    dspy.Image: _object("An image, by its address or as a data URI.", ("url",), url=_STRING),
    dspy.Audio: _object("A recording in base64.", ("data", "audio_format"), data=_STRING, audio_format=_STRING),
    dspy.File: {
        **_object(
            "A file: its content as a data URI, or the id that it has at the provider.",
            (),
            file_data={"anyOf": [_DATA_URI, {"type": "null"}], "default": None},
            file_id=_OPTIONAL_STRING,
            filename=_OPTIONAL_STRING,
        ),
        "minProperties": 1,
    },
    Document: _object(
        "A text, or a PDF in base64, that may be cited.",
        ("data",),
        data=_STRING,
        title=_OPTIONAL_STRING,
        media_type={"type": "string", "enum": ["text/plain", "application/pdf"], "default": "text/plain"},
        context=_OPTIONAL_STRING,
    ),
    dspy.History: _object(
        "The turns of a conversation, each an object of the signature's fields.",
        ("messages",),
        messages={"type": "array", "items": {"type": "object", "additionalProperties": True}},
    ),
    dspy.Code: _object("Source code.", ("code",), code=_STRING),
    dspy.Reasoning: _object("What the model thought.", ("content",), content=_STRING),
    dspy.ToolCalls.ToolCall: _CALL,
    dspy.ToolCalls: _object(
        "Calls of tools.", ("tool_calls",), tool_calls={"type": "array", "items": _CALL}, tool_call_results={}
    ),
}

_SHORT: Final[dict[type[pydantic.BaseModel], dict[str, Any]]] = {
    dspy.Audio: {"type": "string", "pattern": "^data:audio/", "description": "A data URI."},
    dspy.File: {**_DATA_URI, "description": "A data URI."},
    Document: _STRING,
    dspy.Code: _STRING,
    dspy.Reasoning: _STRING,
    dspy.ToolCalls: {"type": "array", "items": _CALL},
}
"""What DSPy takes in place of the object."""

_TEXTS: Final = {dspy.Code: "code", dspy.Reasoning: "content"}
"""Types that come out as plain text, so that the deltas of a stream add up to them."""


def published_schema(cls: type[pydantic.BaseModel], *, as_output: bool) -> dict[str, Any] | None:
    """The JSON Schema of one of DSPy's types; None for any other class, which pydantic describes well itself."""
    known = next((base for base in cls.__mro__ if base in _OBJECTS), None)
    if known is None or (cls is not known and known not in _TEXTS and not cls.__module__.startswith("dspy.")):
        return None
    described = {"title": cls.__name__, **_OBJECTS[known]}
    if as_output:
        return {"title": cls.__name__, **_STRING} if known in _TEXTS else described
    short = _SHORT.get(known)
    return described if short is None else {"title": cls.__name__, "anyOf": [described, short]}


class _FromText:
    """Lets an image be given by its address alone, as `dspy.Image("https://…")` does in Python."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return pydantic.BeforeValidator(_image_object).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        described = handler(schema)
        return described if handler.mode == "serialization" else {"anyOf": [described, {**_STRING, "format": "uri"}]}


def _image_object(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


def taken_from_json(annotation: Any) -> Any:
    """`annotation` with everything that clients may write shorter than DSPy's own models take."""
    if annotation is dspy.Image:
        return Annotated[dspy.Image, _FromText()]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None or not contains(annotation, dspy.Image) or origin is Annotated:
        return annotation
    taken = tuple(taken_from_json(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        return Union[taken]  # noqa: UP007 - made at run time
    return origin[taken]


def contains(annotation: Any, *wanted: type) -> bool:
    """Whether a value of `annotation` can hold one of `wanted`, in the fields of models too."""
    return any(issubclass(found, wanted) for found in _classes(annotation, set()))


def _classes(annotation: Any, seen: set[Any]) -> Iterator[type]:
    for argument in get_args(annotation):
        yield from _classes(argument, seen)
    if isinstance(annotation, type) and annotation not in seen and get_origin(annotation) is None:
        seen.add(annotation)
        yield annotation
        for info in getattr(annotation, "model_fields", {}).values():
            yield from _classes(info.annotation, seen)


MEDIA: Final = (dspy.Audio, dspy.File)
"""Types of which DSPy passes on what it is given, data or not."""


def media_faults(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    """Pointers to media in `value` that hold something else than data, a path for example, and what is wrong."""
    if isinstance(value, dspy.Audio):
        if not _is_base64(value.data):
            yield pointer, "Audio must be given as base64 data or as a data URI."
    elif isinstance(value, dspy.File):
        if value.file_data is not None and not value.file_data.startswith("data:"):
            yield pointer, "A file must be given as a data URI or by the provider's file id."
    elif isinstance(value, pydantic.BaseModel):
        for name in type(value).model_fields:
            yield from media_faults(getattr(value, name), f"{pointer}/{name}")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from media_faults(item, f"{pointer}/{name}")
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from media_faults(item, f"{pointer}/{index}")


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def plain(value: pydantic.BaseModel) -> Any:
    """A pydantic model as the object that its schema tells of; what it holds may still be anything.

    Of DSPy's types it gives the fields, or the text, never the sentinel that prompts carry.
    """
    for cls, field in _TEXTS.items():
        if isinstance(value, cls):
            return getattr(value, field)
    if isinstance(value, dspy.ToolCalls) and value.tool_call_results is None:
        return {"tool_calls": value.tool_calls}
    if not _holds_dspy_types(type(value)):
        try:
            return to_jsonable_python(value, by_alias=True, inf_nan_mode="strings")
        except (PydanticSerializationError, ValueError):
            logger.debug("%s cannot serialise itself", type(value).__name__, exc_info=True)
    return _fields(value)


def _fields(value: pydantic.BaseModel) -> dict[str, Any]:
    cls = type(value)
    stored = {
        info.serialization_alias or info.alias or name: getattr(value, name, None)
        for name, info in cls.model_fields.items()
        if not info.exclude
    }
    computed = {info.alias or name: getattr(value, name) for name, info in cls.model_computed_fields.items()}
    return {**stored, **computed, **(value.model_extra or {})}


@lru_cache(maxsize=1024)
def _holds_dspy_types(cls: type[pydantic.BaseModel]) -> bool:
    # What is typed as anything may turn out to be one of DSPy's types, too.
    return contains(cls, Type) or any(found in (Any, object, pydantic.BaseModel) for found in _classes(cls, set()))
