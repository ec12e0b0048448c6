"""The contract of a program: from its signature, or its `forward`, to JSON Schema and to the validation of inputs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast, get_type_hints

import dspy
import pydantic
from dspy.adapters.types.base_type import CUSTOM_TYPE_START_IDENTIFIER
from dspy.adapters.utils import annotation_allows_none
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticUndefined

from dspyserve.conf import settings
from dspyserve.encoding import encode
from dspyserve.errors import Fault, InvalidInput, RegistrationError
from dspyserve.programs import dspy_types

PRIVILEGED: Final = frozenset({"config", "lm", "demos", "signature", "new_signature", "prediction", "_trace"})
"""Keyword arguments that `dspy.Predict` takes for itself; a field of that name would let a request body reach them."""

MAX_FAULTS: Final = 20


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a program; `default` is `PydanticUndefined` where the field is required."""

    name: str
    type: Any
    description: str = ""
    default: Any = PydanticUndefined


class _Schema(GenerateJsonSchema):
    """JSON Schema that says nothing, instead of failing, about a type that has no JSON form."""

    ignored_warning_kinds = {"non-serializable-default", "skipped-choice"}

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        return {}

    def model_schema(self, schema: Any) -> dict[str, Any]:
        known = dspy_types.published_schema(schema["cls"], as_output=self.mode == "serialization")
        return super().model_schema(schema) if known is None else known


class ProgramSchema:
    """Input and output fields of one program, their JSON Schemas, and the validation of inputs."""

    def __init__(self, inputs: list[Field], outputs: list[Field]) -> None:
        if privileged := sorted(PRIVILEGED & {field.name for field in inputs}):
            raise RegistrationError(f"input fields may not be named {', '.join(privileged)}: DSPy takes these itself")
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._model = _model("Inputs", inputs, extra="forbid")
        self._has_media = any(dspy_types.contains(field.type, *dspy_types.MEDIA) for field in inputs)
        self.input_schema = _json_schema(self._model, "validation")
        # A program may return more than its signature says, as ReAct does its trajectory.
        self.output_schema = _json_schema(_model("Outputs", outputs, extra="allow"), "serialization")

    def validate(self, inputs: Any, *, from_json: bool) -> dict[str, Any]:
        """The typed values of `inputs`. JSON is taken strictly (`"3"` is no int); Python values leniently.

        Raises:
            InvalidInput: with a pointer into the request body for every fault.
        """
        if not isinstance(inputs, Mapping):
            raise InvalidInput([Fault("/inputs", "An object of input fields is needed.")])
        _refuse_unsafe(inputs, "/inputs")
        model = _validated(self._model, inputs, "/inputs", from_json=from_json)
        values = {field.name: getattr(model, attribute) for attribute, field in _numbered(self.inputs)}
        if self._has_media and (faults := [Fault(*fault) for fault in dspy_types.media_faults(values, "/inputs")]):
            raise InvalidInput(faults[:MAX_FAULTS])
        return values

    def check_outputs(self, outputs: Any, pointer: str) -> None:
        """Whether `outputs`, JSON of some of the program's output fields, fits them; `pointer` is where it stands.

        Raises:
            InvalidInput: with a pointer for every fault.
        """
        if not isinstance(outputs, Mapping):
            raise InvalidInput([Fault(pointer, "An object of output fields is needed.")])
        _refuse_unsafe(outputs, pointer)
        fields = [replace(field, default=None) for field in self.outputs]
        model = _model("Outputs", fields, extra="forbid" if fields else "allow")
        _validated(model, outputs, pointer, from_json=True)


def program_schema(
    program: dspy.Module, inputs: Mapping[str, Any] | None = None, outputs: Mapping[str, Any] | None = None
) -> ProgramSchema:
    """The schema of `program`; `inputs` and `outputs` are what its registration declares, name to type.

    Raises:
        RegistrationError: the inputs cannot be told, or a field has a name that DSPy takes for itself.
    """
    signature = None if _has_own_forward(program) else signature_of(program)
    if inputs is not None:
        input_fields = _declared(inputs)
    elif signature is not None:
        input_fields = [_field(name, info) for name, info in signature.input_fields.items()]
    else:
        input_fields = _parameters(program)
    if outputs is not None:
        output_fields = _declared(outputs)
    else:
        output_fields = [] if signature is None else [_field(n, i) for n, i in signature.output_fields.items()]
    return ProgramSchema(input_fields, output_fields)


def signature_of(program: dspy.Module) -> type[dspy.Signature] | None:
    """The signature that a call of `program` follows, where it has one."""
    if isinstance(program, dspy.ChainOfThought):
        return cast("type[dspy.Signature]", program.predict.signature)
    signature = getattr(program, "signature", None)
    if isinstance(signature, type) and issubclass(signature, dspy.Signature):
        return signature
    inner = getattr(program, "module", None)
    return signature_of(inner) if isinstance(inner, dspy.Module) else None


def _has_own_forward(program: dspy.Module) -> bool:
    for cls in type(program).__mro__:
        if "forward" in vars(cls) or "aforward" in vars(cls):
            return not cls.__module__.startswith("dspy.")
    return False


def _forward(program: dspy.Module) -> Any:
    for cls in type(program).__mro__:
        for name in ("forward", "aforward"):
            if name in vars(cls):
                return inspect.unwrap(vars(cls)[name])
    raise RegistrationError(f"{type(program).__name__} defines neither forward nor aforward")


def _parameters(program: dspy.Module) -> list[Field]:
    function = _forward(program)
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception as error:
        raise RegistrationError(f"the annotations of {type(program).__name__}.forward fail: {error}") from error
    fields = []
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise RegistrationError(
                f"{type(program).__name__}.forward takes *{name}: declare register(..., inputs={{...}}) instead"
            )
        default = PydanticUndefined if parameter.default is parameter.empty else parameter.default
        fields.append(Field(name, hints.get(name, Any), "", default))
    return fields


def _declared(types: Mapping[str, Any]) -> list[Field]:
    return [Field(name, annotation, "", _default(annotation)) for name, annotation in types.items()]


def _field(name: str, info: Any) -> Field:
    extra = info.json_schema_extra or {}
    description = extra.get("desc") or ""
    default = info.default if info.default is not PydanticUndefined else _default(info.annotation)
    return Field(name, info.annotation, "" if description == f"${{{name}}}" else description, default)


def _default(annotation: Any) -> Any:
    # Optional without a default is optional to DSPy and required to pydantic.
    return None if annotation_allows_none(annotation) and annotation is not Any else PydanticUndefined


def _numbered(fields: tuple[Field, ...] | list[Field]) -> Iterator[tuple[str, Field]]:
    # Fields may be named `schema` or `copy`, which a pydantic model has already: they stand behind aliases.
    return ((f"field_{number}", field) for number, field in enumerate(fields))


def _model(title: str, fields: list[Field], *, extra: Literal["allow", "forbid"]) -> type[pydantic.BaseModel]:
    config = pydantic.ConfigDict(
        extra=extra,
        strict=True,
        arbitrary_types_allowed=True,
        title=title,
        protected_namespaces=(),
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )
    definitions: dict[str, Any] = {}
    for attribute, field in _numbered(fields):
        default = ... if field.default is PydanticUndefined else field.default
        info = pydantic.Field(default, alias=field.name, title=field.name, description=field.description or None)
        definitions[attribute] = (dspy_types.taken_from_json(field.type), info)
    return pydantic.create_model(title, __config__=config, **definitions)


def _json_schema(model: type[pydantic.BaseModel], mode: Any) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True, schema_generator=_Schema, mode=mode)


def _refuse_unsafe(given: Mapping[str, Any], pointer: str) -> None:
    # Where the faults are is only asked where there are any.
    if not _is_safe(given, settings().max_input_depth):
        raise InvalidInput(list(_unsafe(given, pointer, 1))[:MAX_FAULTS])


def _is_safe(value: Any, levels: int) -> bool:
    """Whether `_unsafe` finds nothing in `value`, which may nest `levels` deep."""
    if isinstance(value, str):
        return _unsafe_text(value) is None
    if isinstance(value, dict):
        return levels > 0 and all(
            _unsafe_text(str(key)) is None and _is_safe(item, levels - 1) for key, item in value.items()
        )
    if isinstance(value, list | tuple):
        return levels > 0 and all(_is_safe(item, levels - 1) for item in value)
    if isinstance(value, Mapping):
        return _is_safe(dict(value), levels)
    return True


def _unsafe(value: Any, pointer: str, depth: int) -> Iterator[Fault]:
    if isinstance(value, str):
        if fault := _unsafe_text(value):
            yield Fault(pointer, fault)
    elif depth > settings().max_input_depth and isinstance(value, Mapping | list | tuple):
        yield Fault(pointer, f"Nested deeper than {settings().max_input_depth} levels.")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _unsafe(str(key), f"{pointer}/{_escape(key)}", depth)
            yield from _unsafe(item, f"{pointer}/{_escape(key)}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _unsafe(item, f"{pointer}/{index}", depth + 1)


def _unsafe_text(text: str) -> str | None:
    if CUSTOM_TYPE_START_IDENTIFIER in text:
        return "Contains the marker of a DSPy custom type, which would be read as content of another type."
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "Contains a lone surrogate, which is not valid Unicode."
    return None


def _validated(
    model: type[pydantic.BaseModel], given: Mapping[str, Any], pointer: str, *, from_json: bool
) -> pydantic.BaseModel:
    try:
        if not from_json:
            return model.model_validate(dict(given), strict=False)
        # Only JSON mode knows that a date is written as a string and a set as a list while "3" is no number.
        return model.model_validate_json(encode(given))
    except pydantic.ValidationError as error:
        raise InvalidInput([_fault(entry, pointer) for entry in error.errors()[:MAX_FAULTS]]) from None
    except TypeError:
        # DSPy's types raise it from their constructors, which pydantic lets through.
        raise InvalidInput([Fault(pointer, "A field of one of DSPy's types has members that it may not.")]) from None


def _fault(entry: Any, pointer: str) -> Fault:
    location = "".join(f"/{_escape(part)}" for part in entry["loc"])
    return Fault(f"{pointer}{location}", _message(entry))


def _message(entry: Any) -> str:
    messages = {"extra_forbidden": "Not a field of this program.", "missing": "This field is required."}
    return str(messages.get(entry["type"], entry["msg"]))


def _escape(part: Any) -> str:
    text = str(part).encode("utf-8", "replace").decode("utf-8")
    return text.replace("~", "~0").replace("/", "~1")
