"""The playground: a program's inputs as a form, and its run as it happens."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from dspyserve.admin.programs import run_panel
from dspyserve.admin.programs.input_form import InputForm
from dspyserve.admin.programs.pages import page, program_of
from dspyserve.errors import DspyserveError
from dspyserve.programs.catalogue import catalogue


def playground(model_admin: admin.ModelAdmin[Any], request: HttpRequest, pk: int) -> HttpResponse:
    """The page where those who may run the program try it out."""
    program = program_of(model_admin, request, pk)
    context: dict[str, Any] = {"refusal": run_panel.refusal(request.user, program)}
    if not context["refusal"]:
        try:
            served = catalogue.get(program.name)
        except DspyserveError as error:
            context["refusal"] = str(error.__cause__ or error)
        else:
            context |= run_panel.context(request, served)
            context |= {
                "form": InputForm(served.schema.input_schema),
                "choices": run_panel.choices(request.user, program),
            }
    return page(model_admin, request, program, "playground", _("Playground"), **context)
