"""Rows for the programs that are registered in code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.apps import apps as installed_apps
from django.db import DEFAULT_DB_ALIAS, router, transaction

from dspyserve.models import LanguageModel, Program
from dspyserve.programs.registry import Registration, registry

DEMO_LANGUAGE_MODEL = "demo"
"""The language model that a new installation has: the embedded offline engine."""


@dataclass(slots=True)
class Synchronisation:
    """The names of the programs that were created, updated, left alone, and of those whose code is gone."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


@transaction.atomic
def synchronise() -> Synchronisation:
    """Give every registered program a row. What people set in the admin stays, what only the code set follows it."""
    _ensure_language_model()
    done = Synchronisation()
    rows = {row.name: row for row in Program.objects.select_for_update().all()}
    for registration in registry:
        _synchronise(registration, rows.get(registration.name), done)
    done.gone = [name for name, row in rows.items() if row.source == Program.Source.CODE and name not in registry]
    return done


def after_migrate(using: str = DEFAULT_DB_ALIAS, apps: Any = None, **_: Any) -> None:
    """Receiver of `post_migrate`: synchronise where the tables that programs are read from are those of today."""
    if using == router.db_for_write(Program) and _is_current(apps or installed_apps):
        synchronise()


def _is_current(apps: Any) -> bool:
    # While migrations go backwards, or to an older one, the tables do not fit the models.
    try:
        then = apps.get_model("dspyserve", "Program")
    except LookupError:
        return False
    columns = {column.attname for column in then._meta.concrete_fields}
    return columns == {column.attname for column in Program._meta.concrete_fields}


def _ensure_language_model() -> None:
    if not LanguageModel.objects.exists():
        LanguageModel.objects.create(name=DEMO_LANGUAGE_MODEL, model="demo/echo", is_default=True)


def _synchronise(registration: Registration, row: Program | None, done: Synchronisation) -> None:
    declared = dict(registration.defaults)
    if row is None:
        row = Program(name=registration.name, source=Program.Source.CODE, declared=declared)
        _set(row, declared)
        row.save()
        done.created.append(registration.name)
        return
    if row.source == Program.Source.CODE and row.declared == declared:
        done.unchanged.append(registration.name)
        return
    # A value that still is what the code said last time was set by nobody else.
    _set(row, {key: value for key, value in declared.items() if _current(row, key) == row.declared.get(key)})
    row.source, row.declared = Program.Source.CODE, declared
    row.save()
    done.updated.append(registration.name)


def _current(row: Program, key: str) -> Any:
    if key == "language_model":
        return row.language_model.name if row.language_model else ""
    return getattr(row, key)


def _set(row: Program, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if key == "language_model":
            # A name that is not stored yet is taken up by a later synchronisation only if it changes; a check tells.
            row.language_model = LanguageModel.objects.filter(name=value).first() if value else None
        else:
            setattr(row, key, value)
