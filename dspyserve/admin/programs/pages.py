"""What all pages of one program share: finding it, checking who asks, and the frame of the page."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from dspyserve.models import Program


def program_of(model_admin: admin.ModelAdmin[Any], request: HttpRequest, pk: int, *, change: bool = False) -> Program:
    """The program whose page is asked for, without the states of its versions.

    Raises:
        Http404: there is none.
        PermissionDenied: the user may not view it or, with `change`, not change it.
    """
    program = model_admin.get_queryset(request).select_related("active_version", "language_model").filter(pk=pk).first()
    if program is None:
        raise Http404
    is_allowed = model_admin.has_change_permission if change else model_admin.has_view_permission
    if not is_allowed(request, program):
        raise PermissionDenied
    return program  # type: ignore[no-any-return]


def page(
    model_admin: admin.ModelAdmin[Any], request: HttpRequest, program: Program, name: str, title: Any, **context: Any
) -> HttpResponse:
    """The page of the template `name`, below `program` in the bread crumbs."""
    frame = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "program": program,
        "title": f"{title} · {program.name}",
        "crumb": title,
        "may_change": model_admin.has_change_permission(request, program),
    }
    return TemplateResponse(request, f"admin/dspyserve/program/{name}.html", {**frame, **context})
