"""Running a trace again: its inputs as a form, another language model or version, the new run beside the old one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from asgiref.sync import async_to_sync
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from dspyserve import runs
from dspyserve.access.identity import Identity
from dspyserve.access.permissions import REPLAY, VIEW_PAYLOAD
from dspyserve.access.throttling import spend
from dspyserve.admin.plain_text import visible
from dspyserve.admin.programs import run_panel
from dspyserve.admin.programs.input_form import InputForm
from dspyserve.admin.traces import payloads
from dspyserve.admin.traces.raw import as_text
from dspyserve.errors import DspyserveError, InvalidInput, RequestError
from dspyserve.events import Caller
from dspyserve.models import LanguageModel, Program, Trace
from dspyserve.programs.catalogue import catalogue
from dspyserve.programs.options import REPLAY_NAMES, RunOptions, run_options
from dspyserve.programs.served import ServedProgram
from dspyserve.tracing.sanitize import is_altered

MAX_REPLAYS: Final = 20
"""The newest that the page of a trace lists."""
TAG: Final = "replay"


def replays_of(traces: QuerySet[Trace], trace: Trace) -> list[Trace]:
    """The newest of `traces` that ran `trace` again: one query."""
    found = traces.filter(replay_of=trace.pk).select_related(None).order_by("-started_at", "-id")
    return list(found.only("id", "status", "started_at", "model", "version_number")[:MAX_REPLAYS])


def may_replay(request: HttpRequest) -> bool:
    """Whether the user may run traces again, whose inputs they then see."""
    return bool(request.user.has_perms([REPLAY, VIEW_PAYLOAD]))


def replay(model_admin: admin.ModelAdmin[Any], request: HttpRequest, object_id: str) -> HttpResponse:
    """The page; without a script, a POST runs the program and leads to the new trace."""
    trace = model_admin.get_object(request, unquote(object_id))
    if not (model_admin.has_view_permission(request, trace) and may_replay(request)):
        raise PermissionDenied
    if trace is None:
        raise Http404
    # Not by the trace's own reference: that may be to a program that is gone.
    program = Program.objects.filter(pk=trace.program_id).first()
    context: dict[str, Any] = {"refusal": _refusal(request, program)}
    if program is not None and not context["refusal"]:
        try:
            served = catalogue.get(program.name)
        except DspyserveError as error:
            context["refusal"] = str(error.__cause__ or error)
        else:
            form, wanted = InputForm(served.schema.input_schema), _wanted(trace, program)
            if request.method == "POST" and (answer := _answer(request, trace, served, form, wanted)) is not None:
                return answer
            context |= _context(request, trace, served, form, wanted)
    frame = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "trace": trace,
        "program_name": visible(trace.program_name),
        "title": _("Run again · %s") % visible(trace.program_name),
        "crumb": _("Run again"),
    }
    return TemplateResponse(request, "admin/dspyserve/trace/replay.html", {**frame, **context})


def _refusal(request: HttpRequest, program: Program | None) -> str:
    if program is None:
        return _("The program of this trace was deleted.")
    return run_panel.refusal(request.user, program)


def _context(
    request: HttpRequest, trace: Trace, served: ServedProgram, form: InputForm, wanted: dict[str, Any]
) -> dict[str, Any]:
    payload = _payload(trace)
    inputs = payload.inputs if isinstance(payload.inputs, Mapping) else None
    outputs = payload.outputs if isinstance(payload.outputs, Mapping) else {}
    if request.method != "POST":
        form.fill(inputs or {})
    for item in form.fields:
        if inputs is not None and is_altered(inputs.get(item.name)):
            item.note = _("What is stored is not all of what went in: parts were cut, hidden or named. Mend it first.")
    known = {item.name for item in form.fields}
    context = run_panel.context(request, served)
    return {
        **context,
        "form": form,
        "has_inputs": inputs is not None,
        "strange_inputs": [visible(name[:200]) for name in inputs or {} if name not in known],
        "choices": run_panel.choices(request.user, served.row, **wanted),
        "old_outputs": outputs,
        "outputs": _beside(context["outputs"], outputs),
        "compare_address": f"{reverse('admin:dspyserve_trace_changelist')}compare/",
    }


def _payload(trace: Trace) -> payloads.Payload:
    """Of the run itself, which is the first span of every trace."""
    run = trace.spans.filter(sequence=1).first()
    return payloads.read(run).get(run.pk, payloads.Payload()) if run is not None else payloads.Payload()


def _beside(fields: list[Any], old: Mapping[str, Any]) -> list[dict[str, str]]:
    """The output fields, those that the program does not tell of too, with what they were."""
    types = {row.name: row.type for row in fields} | {name: "" for name in old if name not in {r.name for r in fields}}
    return [{"name": name, "type": kind, "old": _shown(old.get(name))} for name, kind in types.items()]


def _shown(value: Any) -> str:
    return "" if value is None else visible(as_text(value))


def _wanted(trace: Trace, program: Program) -> dict[str, Any]:
    """The language model and version that the old run had, where they are others than the program has now."""
    active = program.active_version.number if program.active_version else 0
    number = trace.version_number or 0
    is_there = number == 0 or program.versions.filter(number=number).exists()
    own = program.language_model or LanguageModel.objects.filter(is_default=True).first()
    is_own = own is not None and own.model == trace.model
    other = None if is_own else LanguageModel.objects.filter(model=trace.model).order_by("name").first()
    return {
        "version": number if is_there and number != active else None,
        "language_model": other.name if other else None,
    }


def _answer(
    request: HttpRequest, trace: Trace, served: ServedProgram, form: InputForm, wanted: dict[str, Any]
) -> HttpResponseRedirect | None:
    """Run the program in this request. None where nothing ran, which the form then tells."""
    inputs = form.read(request.POST)
    try:
        options = _options(request)
        wanted |= {"language_model": options.language_model, "version": options.version}
        if not form.is_valid:
            return None
        return _redirect(_run(request, trace, served.name, inputs, options).trace_id)
    except InvalidInput as error:
        form.tell(error.faults)
    except RequestError as error:
        if error.trace_id is not None:
            messages.error(request, f"{error.title}: {error.detail}")
            return _redirect(error.trace_id)
        form.errors.append(f"{error.title}: {error.detail}")
    return None


def _run(
    request: HttpRequest, trace: Trace, program: str, inputs: dict[str, Any], options: RunOptions
) -> runs.RunResult:
    identity = Identity(user=request.user)
    async_to_sync(spend)(identity, request.META.get("REMOTE_ADDR", ""))
    caller = Caller(owner=identity.name, user_id=identity.user_id, tags=(TAG,), replay_of=trace.id.hex)
    result = runs.execute(program, inputs, caller=caller, from_json=True, variant=options.variant)
    if not result.trace_stored:
        messages.warning(request, _("The trace is not stored yet."))
    return result


def _options(request: HttpRequest) -> RunOptions:
    number = request.POST.get("version", "")
    given = {
        "language_model": request.POST.get("language_model") or None,
        "version": int(number) if number.isascii() and number.isdigit() else number or None,
    }
    return run_options(given, "/options", REPLAY_NAMES)


def _redirect(trace_id: str) -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse("admin:dspyserve_trace_change", args=[trace_id]))
