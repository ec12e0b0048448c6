"""The programs that this process serves: read from the database now and then, built once, never queried per request.

What is known is served at once while it is younger than `REFRESH`; older, and it is read again beside the request;
older than twice that, because nobody asked for a while, and the request waits for the reading. So a change in the admin
is seen within seconds in every process, and a busy one queries nothing on the way of a request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import dspy
from asgiref.sync import sync_to_async
from django.core.signals import setting_changed
from django.db import close_old_connections
from django.db.models.signals import post_delete, post_save

from dspyserve.conf import settings
from dspyserve.errors import ConfigurationError, DspyserveError, Fault, InvalidInput, ProgramError, ProgramNotFound
from dspyserve.models import LanguageModel, Program, ProgramVersion
from dspyserve.programs.language_models import build_language_model
from dspyserve.programs.registry import registry
from dspyserve.programs.served import ServedProgram, build_served_program
from dspyserve.programs.variant import OWN, Variant

logger = logging.getLogger(__name__)

Fingerprint = tuple[Any, ...]

Found = TypeVar("Found")

MAX_VARIANTS: Final = 16
"""Variants that are kept built; the one that was not asked for the longest goes first."""


class Catalogue:
    """Rows by name and, for each that was asked for, the built program that fits the row."""

    def __init__(self) -> None:
        self._rows: dict[str, Program] = {}
        self._models: dict[int, LanguageModel] = {}
        self._default: LanguageModel | None = None
        self._templates: dict[int, tuple[Fingerprint, dspy.LM]] = {}
        self._fingerprints: dict[str, Fingerprint] = {}
        self._built: dict[str, tuple[Fingerprint, ServedProgram]] = {}
        self._variants: dict[tuple[str, Variant], tuple[Fingerprint, ServedProgram]] = {}
        self._read_at = float("-inf")
        self._changes = 0
        self._refreshing = threading.Lock()
        self._building = threading.Lock()

    def get(self, name: str, variant: Variant = OWN) -> ServedProgram:
        """The program of this name, ready to be executed. A `variant` of it costs a query.

        Raises:
            ProgramNotFound: no enabled program has this name, or its code is gone.
            InvalidInput: there is no such language model or version as the variant names.
            ProgramError: it cannot be built; the log tells why.
        """
        if not self._is_fresh():
            self.refresh()
        if variant != OWN:
            return self._variant(name, variant)
        return self._known(name) or self._build(name)

    async def aget(self, name: str, variant: Variant = OWN) -> ServedProgram:
        """`get` without stopping the event loop. The usual case awaits nothing."""
        if not self._is_fresh():
            await sync_to_async(self._refresh_in_thread)()
        if variant != OWN:
            return await sync_to_async(self._variant_in_thread)(name, variant)
        return self._known(name) or await sync_to_async(self._build_in_thread)(name)

    def rows(self) -> list[Program]:
        """All programs that are enabled and exist in code, by name."""
        if not self._is_fresh():
            self.refresh()
        return list(self._served_rows())

    async def arows(self) -> list[Program]:
        """`rows` without stopping the event loop."""
        if not self._is_fresh():
            await sync_to_async(self._refresh_in_thread)()
        return list(self._served_rows())

    async def arow(self, name: str) -> Program:
        """The row of an enabled program, which may not be built yet; raises as `row` does."""
        if not self._is_fresh():
            await sync_to_async(self._refresh_in_thread)()
        return self.row(name)

    def row(self, name: str) -> Program:
        """The row of an enabled program, as it is known now.

        Raises:
            ProgramNotFound: there is none.
        """
        row = self._rows.get(name)
        if row is None or not _is_served(row):
            raise ProgramNotFound(f"There is no program named {name[:100]!r}.")
        return row

    def forget(self, **_: Any) -> None:
        """Read the rows again at the next request; a signal receiver for changes made in this process."""
        self._changes += 1
        self._read_at = float("-inf")

    def refresh(self) -> None:
        """Read all rows: two queries."""
        asked_at, changes = time.monotonic(), self._changes
        self._models = {model.pk: model for model in LanguageModel.objects.all()}
        self._default = next((model for model in self._models.values() if model.is_default), None)
        rows = {row.name: row for row in Program.objects.all()}
        self._fingerprints = {name: self._fingerprint(row) for name, row in rows.items()}
        self._rows = rows
        if changes == self._changes:
            # A change that came while the rows were read may not be among them.
            self._read_at = asked_at

    def _is_fresh(self) -> bool:
        age = time.monotonic() - self._read_at
        limit = settings().refresh
        if age <= limit:
            return True
        if age > 2 * limit:
            return False
        if self._refreshing.acquire(blocking=False):
            threading.Thread(target=self._refresh_beside, name="dspyserve-catalogue", daemon=True).start()
        return True

    def _refresh_beside(self) -> None:
        try:
            self._refresh_in_thread()
        except Exception:
            logger.exception("The programs could not be read again; what is known stays in use")
        finally:
            self._refreshing.release()

    def _refresh_in_thread(self) -> None:
        close_old_connections()
        try:
            self.refresh()
        except Exception:
            if not self._rows:
                raise
            # The database is away: what is known is served on, and tried again later.
            self._read_at = time.monotonic() - settings().refresh
            logger.warning("The programs could not be read again; what is known stays in use", exc_info=True)
        finally:
            close_old_connections()

    def _served_rows(self) -> Iterator[Program]:
        return (row for row in self._rows.values() if _is_served(row))

    def _known(self, name: str) -> ServedProgram | None:
        self.row(name)
        built = self._built.get(name)
        return built[1] if built is not None and built[0] == self._fingerprints[name] else None

    def _build_in_thread(self, name: str) -> ServedProgram:
        close_old_connections()
        try:
            return self._build(name)
        finally:
            close_old_connections()

    def _build(self, name: str) -> ServedProgram:
        with self._building:
            if (known := self._known(name)) is not None:
                return known
            row = self.row(name)
            fingerprint = self._fingerprints[name]
            served = _built(name, lambda: self._build_row(row, self._language_model(row), row.active_version_id))
            self._built[name] = (fingerprint, served)
            return served

    def _variant_in_thread(self, name: str, variant: Variant) -> ServedProgram:
        close_old_connections()
        try:
            return self._variant(name, variant)
        finally:
            close_old_connections()

    def _variant(self, name: str, variant: Variant) -> ServedProgram:
        row = self.row(name)
        version_id = _chosen_version(row, variant)
        with self._building:
            model = self._chosen_model(row, variant)
            fingerprint = (self._fingerprints[name], _values(model), version_id)
            known = self._variants.pop((name, variant), None)
            if known is None or known[0] != fingerprint:
                known = (fingerprint, _built(name, lambda: self._build_row(row, model, version_id)))
            # The one that was asked for last stands last.
            self._variants[name, variant] = known
            while len(self._variants) > MAX_VARIANTS:
                del self._variants[next(iter(self._variants))]
            return known[1]

    def _chosen_model(self, row: Program, variant: Variant) -> LanguageModel:
        if variant.language_model is None:
            return _built(row.name, lambda: self._language_model(row))
        found = next((model for model in self._models.values() if model.name == variant.language_model), None)
        if found is None:
            raise InvalidInput([Fault("/options/language_model", "There is no language model of this name.")])
        return found

    def _build_row(self, row: Program, model: LanguageModel, version_id: int | None) -> ServedProgram:
        version = ProgramVersion.objects.get(pk=version_id) if version_id else None
        return build_served_program(row, model, self._template(model), version)

    def _language_model(self, row: Program) -> LanguageModel:
        model = self._models.get(row.language_model_id) if row.language_model_id else self._default
        if model is None:
            raise ConfigurationError(f"program {row.name!r} has no language model, and none is the default")
        return model

    def _template(self, model: LanguageModel) -> dspy.LM:
        fingerprint = _values(model)
        known = self._templates.get(model.pk)
        if known is None or known[0] != fingerprint:
            known = (fingerprint, build_language_model(model))
            self._templates[model.pk] = known
        # One template per program; the copies share the connection pools.
        return known[1].copy()

    def _fingerprint(self, row: Program) -> Fingerprint:
        model = self._models.get(row.language_model_id) if row.language_model_id else self._default
        return (_values(row), _values(model) if model is not None else None, id(registry.get(row.name)))


def _built(name: str, build: Callable[[], Found]) -> Found:
    """What `build` gives. Why a program cannot be built is for the log: to callers it is configured wrongly."""
    try:
        return build()
    except DspyserveError as error:
        logger.error("The program %s cannot be served: %s", name, error)
        raise ProgramError("The program is not configured correctly.") from error
    except Exception as error:
        logger.exception("The program %s cannot be served", name)
        raise ProgramError("The program is not configured correctly.") from error


def _chosen_version(row: Program, variant: Variant) -> int | None:
    if variant.version is None:
        return row.active_version_id
    if variant.version == 0:
        return None
    found = ProgramVersion.objects.filter(program=row, number=variant.version).values_list("pk", flat=True).first()
    if found is None:
        raise InvalidInput([Fault("/options/version", "The program has no version of this number.")])
    return found


def _is_served(row: Program) -> bool:
    return row.is_enabled and (row.source != Program.Source.CODE or row.name in registry)


def _values(row: Program | LanguageModel) -> Fingerprint:
    return tuple(repr(getattr(row, column.attname)) for column in row._meta.concrete_fields)


catalogue = Catalogue()

for _model in (Program, ProgramVersion, LanguageModel):
    post_save.connect(catalogue.forget, sender=_model)
    post_delete.connect(catalogue.forget, sender=_model)


def _forget_settings(*, setting: str, **_: Any) -> None:
    if setting == "DSPYSERVE":
        catalogue.forget()


setting_changed.connect(_forget_settings)
