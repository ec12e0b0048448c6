"""Programs in the admin."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from dspyserve.admin.programs import contract, versions
from dspyserve.admin.programs.figures import figures
from dspyserve.admin.programs.playground import playground
from dspyserve.errors import DspyserveError
from dspyserve.models import LanguageModel, Program, ProgramVersion
from dspyserve.programs.catalogue import catalogue
from dspyserve.programs.execution_mode import execution_mode
from dspyserve.programs.registry import registry
from dspyserve.programs.schema import program_schema
from dspyserve.programs.served import program_from_signature

_SHAPE = ("signature", "instructions", "module")


class ProgramForm(forms.ModelForm):  # type: ignore[type-arg]
    """Builds a program before it is saved, so that what is saved can be served."""

    class Meta:
        model = Program
        exclude = ()  # noqa: DJ006 - the admin's fieldsets choose

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "active_version" in self.fields:
            own = ProgramVersion.objects.filter(program_id=self.instance.pk).defer("state").select_related("program")
            self.fields["active_version"].queryset = own  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """Say what DSPy says of the signature."""
        cleaned = super().clean() or {}
        if self.instance.source == Program.Source.SIGNATURE and cleaned.get("signature"):
            given = {name: cleaned.get(name, getattr(self.instance, name)) for name in (*_SHAPE, "execution")}
            try:
                template = program_from_signature(Program(**given))
                program_schema(template)
                execution_mode(template, given["execution"])
            except DspyserveError as error:
                self.add_error("signature", str(error))
        if cleaned.get("name") in registry and self.instance._state.adding:
            self.add_error("name", _("A program of this name is registered in code."))
        return cleaned


@admin.register(Program)
class ProgramAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Code programs show where they come from; signature programs are made here. No import path is ever typed in."""

    form = ProgramForm
    change_form_template = "admin/dspyserve/program/change_form.html"
    list_display = ("name", "title", "links", "runs_on", "running_version", "access", "is_enabled")
    list_filter = ("source", "access", "is_enabled")
    list_select_related = ("language_model", "active_version")
    search_fields = ("name", "title", "description")
    # Not autocomplete_fields: a project need not have its users and groups in this admin.
    raw_id_fields = ("users",)
    filter_horizontal = ("groups",)
    readonly_fields = ("origin", "inputs", "outputs", "created_at", "updated_at")

    class Media:
        css = {"all": ["dspyserve/admin/base.css", "dspyserve/admin/program.css"]}

    def get_readonly_fields(self, request: HttpRequest, obj: Program | None = None) -> list[str]:
        """A registered program keeps its name."""
        is_code = obj is not None and obj.source == Program.Source.CODE
        return [*self.readonly_fields, *(["name"] if is_code else [])]

    def get_fieldsets(self, request: HttpRequest, obj: Program | None = None) -> Any:
        """The signature is shown where it makes the program."""
        is_code = obj is not None and obj.source == Program.Source.CODE
        shape = () if is_code else _SHAPE
        contract = [(_("Contract"), {"fields": ("inputs", "outputs")})] if obj else []
        return [
            (None, {"fields": ("name", "title", "description", "origin", *shape)}),
            (_("Running"), {"fields": ("language_model", "adapter", "execution", "timeout", "active_version")}),
            (_("Limits"), {"fields": ("max_concurrency", "max_queue")}),
            (_("Access and traces"), {"fields": ("is_enabled", "access", "users", "groups", "trace_level")}),
            *contract,
            (_("History"), {"fields": ("created_at", "updated_at")}),
        ]

    def get_list_display(self, request: HttpRequest) -> Any:
        """Traces are linked for those who may see them."""
        is_linked = request.user.has_perm("dspyserve.view_trace")
        return [name if is_linked or name != "links" else "playground_link" for name in self.list_display]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Program]:
        """Without the states of versions."""
        return super().get_queryset(request).defer("active_version__state")

    @admin.display(description=_("origin"))
    def origin(self, row: Program) -> str:
        """Where the program is written."""
        if row.source == Program.Source.SIGNATURE:
            return str(_("Signature"))
        registration = registry.get(row.name)
        return _gone() if registration is None else registration.origin

    @admin.display(description=_("language model"))
    def runs_on(self, row: Program) -> str:
        """Its own, or the default one."""
        if row.language_model is not None:
            return row.language_model.name
        return str(_("default"))

    @admin.display(description=_("version"))
    def running_version(self, row: Program) -> str:
        """The number of the active one."""
        return f"v{row.active_version.number}" if row.active_version else "–"

    @admin.display(description=_("try it"))
    def links(self, row: Program) -> str:
        """The playground and the traces."""
        return format_html('{} · <a href="{}">{}</a>', self.playground_link(row), traces_of(row), _("Traces"))

    @admin.display(description=_("try it"))
    def playground_link(self, row: Program) -> str:
        """The playground alone, unless there is nothing to play with."""
        if row.source == Program.Source.CODE and registry.get(row.name) is None:
            return _gone()
        address = reverse("admin:dspyserve_program_playground", args=[row.pk])
        return format_html('<a href="{}">{}</a>', address, _("Playground"))

    @admin.display(description=_("inputs"))
    def inputs(self, row: Program) -> str:
        """The fields that it takes."""
        return _contract(row, "input_schema")

    @admin.display(description=_("outputs"))
    def outputs(self, row: Program) -> str:
        """The fields that it gives."""
        return _contract(row, "output_schema")

    # Pages of a program

    def get_urls(self) -> list[URLPattern]:
        """The pages of versions and the playground, beside the admin's own."""
        views: dict[str, tuple[str, Callable[..., HttpResponse]]] = {
            "playground": ("playground/", playground),
            "version_add": ("versions/add/", versions.upload),
            "versions_compare": ("versions/compare/", versions.compare),
            "version": ("versions/<int:number>/", versions.version_page),
            "version_download": ("versions/<int:number>/state.json", versions.download),
            "version_activate": ("versions/<int:number>/activate/", versions.activate),
        }
        own = [
            path(f"<int:pk>/{route}", self.admin_site.admin_view(partial(view, self)), name=f"dspyserve_program_{name}")
            for name, (route, view) in views.items()
        ]
        return [*own, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The form, with the versions and what leads on from here."""
        program = self.get_object(request, unquote(object_id))
        more: dict[str, Any] = {}
        if program is not None:
            more = {**versions.listed(program), "figures": figures(request, program)}
            more["traces_address"] = traces_of(program)
        context = {**more, "may_add_version": versions.may_add(request), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Say which language model is meant by none."""
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if db_field.name == "language_model" and field is not None:
            default = LanguageModel.objects.filter(is_default=True).first()
            field.empty_label = str(_("Default (%s)") % (default.name if default else "–"))  # type: ignore[attr-defined]
        return field


def traces_of(program: Program) -> str:
    """The address of the list of its traces."""
    return f"{reverse('admin:dspyserve_trace_changelist')}?{urlencode({'program': program.name})}"


def _contract(row: Program, name: str) -> str:
    try:
        schema = getattr(catalogue.get(row.name).schema, name)
    except DspyserveError as error:
        return str(error.__cause__ or error)
    raw = json.dumps(schema, indent=2, ensure_ascii=False)
    context = {"fields": contract.rows(schema), "raw": raw}
    return render_to_string("admin/dspyserve/program/fields.html", context)


def _gone() -> SafeString:
    return format_html('<span class="dspyserve-badge dspyserve-failed">✕ {}</span>', _("The code is gone"))
