"""A program that is ready to be executed: built once per process, with its language model, adapter and schema."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.adapters import Adapter

from dspyserve.conf import settings
from dspyserve.errors import ConfigurationError, RegistrationError
from dspyserve.models import LanguageModel, Program, ProgramVersion
from dspyserve.programs.execution_mode import Mode, execution_mode
from dspyserve.programs.parts import language_models
from dspyserve.programs.registry import Registration, registry
from dspyserve.programs.schema import ProgramSchema, program_schema
from dspyserve.programs.state import load_state, signature_hash
from dspyserve.shortcuts.prompts import remember_system_messages

logger = logging.getLogger(__name__)

_ADAPTERS: dict[str, type[Adapter]] = {
    Program.Adapter.DEFAULT: dspy.ChatAdapter,
    Program.Adapter.CHAT: dspy.ChatAdapter,
    Program.Adapter.JSON: dspy.JSONAdapter,
    Program.Adapter.XML: dspy.XMLAdapter,
}

_MODULES: dict[str, type[dspy.Module]] = {
    Program.Module.PREDICT: dspy.Predict,
    Program.Module.CHAIN_OF_THOUGHT: dspy.ChainOfThought,
}


PATH_ATTRIBUTE = "_dspyserve_path"
"""Where every part of a served program carries its attribute path, such as `react` or `steps[0].predict`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedProgram:
    """Templates that executions copy, and the limits that they keep. Nothing in it is ever executed itself."""

    row: Program
    version_id: int | None
    version_number: int | None
    template: dspy.Module
    lm: dspy.LM
    pinned: tuple[dspy.BaseLM, ...]
    adapter: Adapter
    mode: Mode
    schema: ProgramSchema

    @property
    def name(self) -> str:
        """The program's name."""
        return self.row.name

    @property
    def max_concurrency(self) -> int:
        """Executions at a time in this process."""
        return self.row.max_concurrency or settings().max_concurrency

    @property
    def max_queue(self) -> int:
        """Executions that may wait in this process."""
        return settings().max_queue if self.row.max_queue is None else self.row.max_queue

    @property
    def timeout(self) -> float:
        """Seconds per execution."""
        return self.row.timeout or settings().timeout


def build_served_program(
    row: Program, language_model: LanguageModel, lm: dspy.LM, version: ProgramVersion | None
) -> ServedProgram:
    """Build the program of `row` on `lm`, with the state of `version`.

    Raises:
        RegistrationError: the program's code is wrong.
        ConfigurationError: the row is, or the state does not fit the program.
    """
    registration = registration_of(row)
    template = template_of(row)
    if version is not None:
        load_state(template, version.state)
        if version.signature_hash not in ("", signature_hash(template)):
            logger.warning(
                "Version %s of %s was stored for other fields than the program has", version.number, row.name
            )
    _name_parts(template)
    return ServedProgram(
        row=row,
        version_id=version.pk if version else None,
        version_number=version.number if version else None,
        template=template,
        lm=lm,
        pinned=tuple(language_models(template)),
        adapter=remember_system_messages(_ADAPTERS[row.adapter]()),
        mode=execution_mode(template, row.execution),
        schema=_schema(row, template, registration),
    )


def template_of(row: Program) -> dspy.Module:
    """The program of `row` as it is written, without the state of any version.

    Raises:
        RegistrationError: the program's code is wrong or gone.
        ConfigurationError: DSPy cannot read the row's signature.
    """
    registration = registration_of(row)
    return registration.build() if registration else program_from_signature(row)


def registration_of(row: Program) -> Registration | None:
    """The registration behind a program of source `code`; None for one that is made from a signature.

    Raises:
        RegistrationError: the code that registered it is gone.
    """
    if row.source != Program.Source.CODE:
        return None
    registration = registry.get(row.name)
    if registration is None:
        raise RegistrationError(f"no installed app registers a program named {row.name!r}")
    return registration


def program_from_signature(row: Program) -> dspy.Module:
    """The module that a signature string describes.

    Raises:
        ConfigurationError: DSPy cannot read the signature.
    """
    try:
        # custom_types={}: without it DSPy looks names up in the callers' frames.
        signature = dspy.Signature(row.signature, row.instructions or None, custom_types={})
    except Exception as error:
        raise ConfigurationError(f"the signature {row.signature!r} cannot be read: {error}") from error
    return _MODULES[row.module](signature)


def _name_parts(template: dspy.Module) -> None:
    # Written once on the template: copies carry it along, and no execution has to look names up.
    for path, part in template.named_sub_modules():
        part.__dict__[PATH_ATTRIBUTE] = path.removeprefix("self").removeprefix(".")


def _schema(row: Program, template: dspy.Module, registration: Registration | None) -> ProgramSchema:
    declared: Any = (registration.inputs, registration.outputs) if registration else (None, None)
    try:
        return program_schema(template, *declared)
    except RegistrationError as error:
        raise RegistrationError(f"program {row.name!r}: {error}") from error
