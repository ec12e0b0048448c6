"""The pages of a program's versions: what each holds, uploading, activating and comparing them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dspyserve.admin.programs import state_page
from dspyserve.admin.programs.pages import page, program_of
from dspyserve.encoding import decode
from dspyserve.errors import DspyserveError, MalformedBody, StateMismatch
from dspyserve.models import Program, ProgramVersion
from dspyserve.programs.served import template_of
from dspyserve.programs.versions import NewVersion, activate_version, add_version, is_of_other_fields

MAX_UPLOAD: Final = 10_000_000
"""The largest state that is taken, in bytes."""
MAX_RAW: Final = 200_000
"""Characters of a state's JSON that its page shows; the file has all."""
MAX_LISTED: Final = 50
"""Versions that the page of a program lists."""

ModelAdmin: TypeAlias = "admin.ModelAdmin[Any]"


class UploadForm(forms.Form):
    """A state as a file or as text, and what is said of it."""

    file = forms.FileField(
        label=gettext_lazy("JSON file"),
        required=False,
        help_text=gettext_lazy('What program.save("state.json") wrote.'),
    )
    text = forms.CharField(
        label=gettext_lazy("or JSON"),
        required=False,
        strip=False,
        max_length=MAX_UPLOAD,
        widget=forms.Textarea(attrs={"rows": 8, "cols": 80, "class": "vLargeTextField", "spellcheck": "false"}),
        help_text=gettext_lazy("What dump_state() gave, where there is no file."),
    )
    note = forms.CharField(
        label=gettext_lazy("Note"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 80, "class": "vLargeTextField"}),
        help_text=gettext_lazy("What is different in this version."),
    )
    metrics = forms.JSONField(
        label=gettext_lazy("Metrics"),
        required=False,
        initial=dict,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 80, "class": "vLargeTextField", "spellcheck": "false"}),
        help_text=gettext_lazy('A JSON object, such as {"accuracy": 0.83}.'),
    )
    activate = forms.BooleanField(label=gettext_lazy("Activate it"), required=False)
    force = forms.BooleanField(
        label=gettext_lazy("Store it although it seems to be a state of other fields"), required=False
    )

    document: Any = None

    def clean_metrics(self) -> dict[str, Any]:
        """An object; nothing counts as an empty one."""
        metrics = self.cleaned_data["metrics"]
        if metrics in (None, ""):
            return {}
        if not isinstance(metrics, dict):
            raise forms.ValidationError(_("A JSON object is needed."))
        return metrics

    def clean(self) -> dict[str, Any]:
        """Read the state, from the file where there is one."""
        cleaned = super().clean() or {}
        file = cleaned.get("file")
        if file is not None and file.size > MAX_UPLOAD:
            self.add_error("file", _("At most %d bytes.") % MAX_UPLOAD)
            return cleaned
        text = file.read() if file is not None else cleaned.get("text", "")
        if not text.strip():
            self.add_error("file", _("A state is needed."))
            return cleaned
        try:
            self.document = decode(text)
        except MalformedBody:
            self.add_error("file" if file is not None else "text", _("This is not JSON."))
        return cleaned


def may_add(request: HttpRequest) -> bool:
    """Whether the user may add versions."""
    codename = get_permission_codename("add", ProgramVersion._meta)
    return request.user.has_perm(f"{ProgramVersion._meta.app_label}.{codename}")


def listed(program: Program) -> dict[str, Any]:
    """What the page of a program shows of its versions: the newest, without their states."""
    rows = ProgramVersion.objects.filter(program=program).defer("state").select_related("author")
    found = list(rows.order_by("-number")[: MAX_LISTED + 1])
    return {"versions": found[:MAX_LISTED], "has_more_versions": len(found) > MAX_LISTED}


def version_page(model_admin: ModelAdmin, request: HttpRequest, pk: int, number: int) -> HttpResponse:
    """What one version holds."""
    program = program_of(model_admin, request, pk)
    version = _version(program, number)
    raw = json.dumps(version.state, indent=2, ensure_ascii=False)
    context = {
        "version": version,
        "is_active": program.active_version_id == version.pk,
        "predictors": state_page.predictors(version.state),
        "raw": raw[:MAX_RAW],
        "is_raw_cut": len(raw) > MAX_RAW,
        "others": _numbers(program, without=number),
        **_fitness(program, version),
    }
    return page(model_admin, request, program, "version", _("Version %d") % number, **context)


def download(model_admin: ModelAdmin, request: HttpRequest, pk: int, number: int) -> HttpResponse:
    """The state as a file that `program.load` reads."""
    program = program_of(model_admin, request, pk)
    text = json.dumps(_version(program, number).state, indent=2, ensure_ascii=False)
    response = HttpResponse(text, content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="{program.name}-v{number}.json"'
    return response


def upload(model_admin: ModelAdmin, request: HttpRequest, pk: int) -> HttpResponse:
    """Take a new state; what is refused stays in the form."""
    program = program_of(model_admin, request, pk)
    if not may_add(request):
        raise PermissionDenied
    form = UploadForm(request.POST or None, request.FILES or None)
    if not model_admin.has_change_permission(request, program):
        del form.fields["activate"]
    if request.method == "POST" and form.is_valid():
        if (new := _stored(model_admin, request, program, form)) is not None:
            return HttpResponseRedirect(_address(program, new.row.number))
        _keep_text(form)
    return page(model_admin, request, program, "upload", _("Upload a state"), form=form)


def activate(model_admin: ModelAdmin, request: HttpRequest, pk: int, number: int) -> HttpResponse:
    """Make the program run with a version; with the number 0, as it is written."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    program = program_of(model_admin, request, pk, change=True)
    version = _version(program, number) if number else None
    if _activated(model_admin, request, program, version, force="force" in request.POST):
        return HttpResponseRedirect(reverse("admin:dspyserve_program_change", args=[program.pk]))
    return HttpResponseRedirect(_address(program, number))


def compare(model_admin: ModelAdmin, request: HttpRequest, pk: int) -> HttpResponse:
    """Two versions side by side, `?a=` and `?b=`; 0 stands for the program as it is written."""
    program = program_of(model_admin, request, pk)
    numbers = _numbers(program)
    first, second = (_number(request.GET.get(name, "")) for name in "ab")
    context: dict[str, Any] = {"numbers": numbers, "a": first, "b": second}
    try:
        versions = [_state(program, number) for number in (first, second)]
    except DspyserveError as error:
        context["fault"] = str(error)
    else:
        (old, metrics_a), (new, metrics_b) = versions
        context |= {
            "differences": state_page.differences(old, new),
            "metrics": [(name, metrics_a.get(name), metrics_b.get(name)) for name in {**metrics_a, **metrics_b}],
        }
    return page(model_admin, request, program, "compare", _("Compare versions"), **context)


def _stored(model_admin: ModelAdmin, request: HttpRequest, program: Program, form: UploadForm) -> NewVersion | None:
    cleaned = form.cleaned_data
    try:
        new = add_version(
            program,
            form.document,
            note=cleaned["note"],
            metrics=cleaned["metrics"],
            author=request.user,
            force=cleaned["force"],
        )
    except DspyserveError as error:
        form.add_error("force" if isinstance(error, StateMismatch) else None, str(error))
        return None
    number = new.row.number
    if new.is_new:
        model_admin.log_change(request, program, _("Version %d was uploaded.") % number)
        messages.success(request, _("Version %d is stored.") % number)
    else:
        messages.info(request, _("This state is stored already, as version %d.") % number)
    for remark in new.remarks:
        messages.warning(request, remark)
    if cleaned.get("activate"):
        _activated(model_admin, request, program, new.row, force=cleaned["force"])
    return new


def _activated(
    model_admin: ModelAdmin, request: HttpRequest, program: Program, version: ProgramVersion | None, *, force: bool
) -> bool:
    try:
        activate_version(program, version, force=force)
    except DspyserveError as error:
        messages.error(request, _("It was not activated: %s") % error)
        return False
    done = _("Version %d is active.") % version.number if version else _("The program runs as it is written.")
    model_admin.log_change(request, program, done)
    messages.success(request, done)
    return True


def _keep_text(form: UploadForm) -> None:
    """Put what was uploaded into the form as text: a browser does not send a file twice."""
    if form.document is not None and form.cleaned_data.get("file") is not None:
        form.data = form.data.copy()  # type: ignore[attr-defined]
        form.data["text"] = json.dumps(form.document, ensure_ascii=False)  # type: ignore[index]


def _fitness(program: Program, version: ProgramVersion) -> dict[str, Any]:
    """Whether the version is one of the fields that the program has now."""
    try:
        return {"is_of_other_fields": is_of_other_fields(version, template_of(program))}
    except DspyserveError as error:
        return {"fault": str(error)}


def _version(program: Program, number: int) -> ProgramVersion:
    version = ProgramVersion.objects.filter(program=program, number=number).select_related("author").first()
    if version is None:
        raise Http404
    return version


def _numbers(program: Program, without: int = 0) -> list[int]:
    found = ProgramVersion.objects.filter(program=program).exclude(number=without).order_by("-number")
    return list(found.values_list("number", flat=True)[:1000])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _state(program: Program, number: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if number:
        version = _version(program, number)
        return version.state, version.metrics if isinstance(version.metrics, dict) else {}
    return template_of(program).dump_state(), {}


def _address(program: Program, number: int) -> str:
    if not number:
        return reverse("admin:dspyserve_program_change", args=[program.pk])
    return reverse("admin:dspyserve_program_version", args=[program.pk, number])
