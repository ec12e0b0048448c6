"""Versions of programs: which states are stored, and which of them runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dspy
from django.db import transaction
from django.db.models import Max

from dspyserve.errors import ConfigurationError, StateMismatch
from dspyserve.models import Program, ProgramVersion
from dspyserve.programs.served import template_of
from dspyserve.programs.state import METADATA, load_state, mismatches, predictor_states, signature_hash

MAX_DEPTH: Final = 100
"""How deep a state may nest."""

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """What became of a state: the version that holds it, whether it is new, and what is worth knowing of it."""

    row: ProgramVersion
    is_new: bool
    remarks: tuple[str, ...]


def add_version(
    program: Program,
    document: Any,
    *,
    note: str = "",
    metrics: Mapping[str, Any] | None = None,
    author: Any = None,
    force: bool = False,
) -> NewVersion:
    """Store `document`, as `program.save("state.json")` writes it or `dump_state()` gives it, as the next version.

    A state that is stored already is not stored again. With `force`, one that seems to be of other fields is.

    Raises:
        ConfigurationError: it is no state, or does not fit the program.
        StateMismatch: it seems to be one of other fields.
    """
    state = _state(document)
    template = template_of(program)
    _check(template, state, force=force)
    remarks = tuple(_remarks(state, document))
    with transaction.atomic():
        # Numbers are given one at a time.
        Program.objects.select_for_update().get(pk=program.pk)
        same = ProgramVersion.objects.filter(program=program, state=state).order_by("-number").first()
        if same is not None:
            return NewVersion(row=same, is_new=False, remarks=remarks)
        last = ProgramVersion.objects.filter(program=program).aggregate(Max("number"))["number__max"] or 0
        row = ProgramVersion.objects.create(
            program=program,
            number=last + 1,
            state=state,
            signature_hash=signature_hash(template),
            dspy_version=_dspy_version(document)[:40],
            note=note,
            metrics=dict(metrics or {}),
            author=author,
        )
    return NewVersion(row=row, is_new=True, remarks=remarks)


def activate_version(program: Program, version: ProgramVersion | None, *, force: bool = False) -> None:
    """Make `program` run with `version` from now on; with None, as it is written.

    Raises:
        ConfigurationError: the state does not fit the program any more.
        StateMismatch: the program's fields are others than when the version was stored; not with `force`.
    """
    if version is not None:
        template = template_of(program)
        load_state(template, version.state)
        if not force and is_of_other_fields(version, template):
            raise StateMismatch("the fields of the program are others than when this version was stored")
    program.active_version = version
    program.save(update_fields=["active_version", "updated_at"])


def is_of_other_fields(version: ProgramVersion, template: dspy.Module) -> bool:
    """Whether the names or the order of the program's fields have changed since `version` was stored."""
    return version.signature_hash not in ("", signature_hash(template))


def _state(document: Any) -> dict[str, Any]:
    """What is stored of `document`: without the language models, which are never loaded and may name hosts."""
    if not isinstance(document, Mapping) or not document:
        raise ConfigurationError("a state is a JSON object, as program.save() writes it")
    if fault := _fault(document):
        raise ConfigurationError(f"the state {fault}")
    return {name: _without_lm(entry) for name, entry in document.items()} | _own_lm(document)


def _fault(document: Any) -> str | None:
    """Why not every database would store `document`."""
    pending = [(document, 1)]
    while pending:
        value, depth = pending.pop()
        if depth > MAX_DEPTH:
            return f"nests deeper than {MAX_DEPTH} levels"
        if isinstance(value, str) and _UNSTORABLE.search(value):
            return "holds NUL characters or lone surrogates"
        if isinstance(value, Mapping):
            pending += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list):
            pending += [(part, depth + 1) for part in value]
    return None


def _without_lm(entry: Any) -> Any:
    return {**entry, "lm": None} if isinstance(entry, Mapping) and entry.get("lm") else entry


def _own_lm(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"lm": None} if "signature" in document and "lm" in document else {}


def _check(template: dspy.Module, state: Mapping[str, Any], *, force: bool) -> None:
    doubts = mismatches(template, state)
    load_state(template, state)
    if doubts and not force:
        raise StateMismatch("; ".join(doubts))


def _remarks(state: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    found = []
    given = predictor_states(document)
    if dropped := [name for name, entry in given.items() if isinstance(entry, Mapping) and entry.get("lm")]:
        found.append(f"the language models that the state names are left out: {', '.join(sorted(dropped))}")
    version = _dspy_version(document)
    if version and version.split(".")[:2] != dspy.__version__.split(".")[:2]:
        found.append(f"the state was saved by DSPy {version}; this is {dspy.__version__}")
    return found


def _dspy_version(document: Mapping[str, Any]) -> str:
    metadata = document.get(METADATA)
    known = metadata.get("dependency_versions") if isinstance(metadata, Mapping) else None
    return str(known.get("dspy", "")) if isinstance(known, Mapping) else ""
