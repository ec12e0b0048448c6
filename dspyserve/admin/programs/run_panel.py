"""What a page needs that runs a program live: who may, on what, and where the program is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from asgiref.sync import async_to_sync
from django.http import HttpRequest
from django.urls import NoReverseMatch, get_script_prefix, reverse
from django.utils.translation import gettext as _

from dspyserve.access.identity import Identity
from dspyserve.access.permissions import REPLAY, Right, check_may_run
from dspyserve.admin.programs.contract import FieldRow, fields
from dspyserve.conf import settings
from dspyserve.errors import RequestError
from dspyserve.models import LanguageModel, Program, ProgramVersion
from dspyserve.programs.served import ServedProgram

MAX_VERSIONS: Final = 100
"""The newest to choose from."""

_NO_TRACE: Final = "0" * 32
"""Stands in addresses for the id of the trace, which the script puts in its place."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An option of a select element."""

    value: str
    label: str
    is_selected: bool = False


def refusal(user: Any, program: Program) -> str:
    """Why `user` may not run `program`; empty where they may."""
    if not program.is_enabled:
        return _("The program is not enabled.")
    try:
        async_to_sync(check_may_run)(Identity(user=user), program)
    except RequestError as error:
        return error.detail
    return ""


def context(request: HttpRequest, served: ServedProgram) -> dict[str, Any]:
    """What the templates of the panel show: the output fields, and the addresses for the script.

    There is none of the trace where none is stored, or the user may not see it.
    """
    has_trace = served.row.trace_level != Program.TraceLevel.OFF and request.user.has_perm(Right.VIEW_TRACES.permission)
    return {
        "outputs": output_fields(served),
        "addresses": {
            "program": served.name,
            "api": request.build_absolute_uri(_api()).rstrip("/"),
            "sockets": get_script_prefix() + settings().websocket_path.strip("/"),
            "trace": reverse("admin:dspyserve_trace_change", args=[_NO_TRACE]) if has_trace else "",
        },
        "words": words(),
    }


def output_fields(served: ServedProgram) -> list[FieldRow]:
    """The fields that the program says it gives."""
    return fields(served.schema.output_schema)


def choices(
    user: Any, program: Program, *, language_model: str | None = None, version: int | None = None
) -> dict[str, list[Choice]] | None:
    """The language models and versions to choose from, with those selected that are named.

    None for users without the permission to replay traces: they run the program as it is.
    """
    if not user.has_perm(REPLAY):
        return None
    return {"models": _models(program, language_model), "versions": _versions(program, version)}


def words() -> dict[str, str]:
    """What the script says, in the language of the page."""
    return {
        "connecting": _("Connecting…"),
        "waiting": _("Running…"),
        "streaming": _("Streaming…"),
        "stopping": _("Stopping…"),
        "succeeded": _("Succeeded"),
        "failed": _("Failed"),
        "cancelled": _("Cancelled"),
        "lost": _("The connection to the server was lost, or could not be opened. Its trace tells how the run ended."),
        "noJson": _("This is not JSON."),
        "noNumber": _("This is not a number."),
        "inexact": _("A browser cannot send so large a number exactly. Call the program from code."),
        "copied": _("Copied"),
        "notCopied": _("Select the text and copy it."),
        "notStored": _("The trace is not stored yet."),
        "hidden": _("More steps are not shown."),
        "cached": _("cached"),
        "asWritten": _("as written"),
    }


def _models(program: Program, selected: str | None) -> list[Choice]:
    rows = list(LanguageModel.objects.order_by("name"))
    default = next((row for row in rows if row.is_default), None)
    own = program.language_model or default
    first = Choice("", _("The program's own: %s") % (f"{own.name} ({own.model})" if own else "–"), not selected)
    return [first, *(Choice(row.name, f"{row.name} ({row.model})", row.name == selected) for row in rows)]


def _versions(program: Program, selected: int | None) -> list[Choice]:
    active = program.active_version.number if program.active_version else 0
    first = Choice("", _("The active one: %s") % (f"v{active}" if active else _("none")), selected is None)
    found = ProgramVersion.objects.filter(program=program).order_by("-number").values_list("number", "note")
    rows = [Choice(str(n), f"v{n} {note[:60]}".strip(), n == selected) for n, note in found[:MAX_VERSIONS]]
    return [first, *rows, Choice("0", _("None: as it is written"), selected == 0)]


def _api() -> str:
    try:
        return reverse("dspyserve-api:api-root")
    except NoReverseMatch:
        # A project that does not mount the API still has its sockets.
        return get_script_prefix() + "api/"
