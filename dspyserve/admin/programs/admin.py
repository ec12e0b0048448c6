"""Programs in the admin."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

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
            own = ProgramVersion.objects.filter(program_id=self.instance.pk).defer("state")
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


class ProgramVersionInline(admin.TabularInline):  # type: ignore[type-arg]
    """The saved states, without the states themselves."""

    model = ProgramVersion
    fk_name = "program"
    fields = readonly_fields = ("number", "note", "author", "dspy_version", "created_at")
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Not here."""
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[ProgramVersion]:
        """A state may be large and is not shown."""
        return super().get_queryset(request).defer("state").select_related("author", "program")


@admin.register(Program)
class ProgramAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Code programs show where they come from; signature programs are made here. No import path is ever typed in."""

    form = ProgramForm
    inlines = (ProgramVersionInline,)
    list_display = ("name", "title", "origin", "runs_on", "access", "trace_level", "is_enabled")
    list_filter = ("source", "access", "is_enabled")
    list_select_related = ("language_model", "active_version")
    search_fields = ("name", "title", "description")
    # Not autocomplete_fields: a project need not have its users and groups in this admin.
    raw_id_fields = ("users",)
    filter_horizontal = ("groups",)
    readonly_fields = ("origin", "inputs", "outputs", "created_at", "updated_at")

    class Media:
        css = {"all": ["dspyserve/admin/base.css"]}

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

    def get_queryset(self, request: HttpRequest) -> QuerySet[Program]:
        """Without the states of versions."""
        return super().get_queryset(request).defer("active_version__state")

    @admin.display(description=_("origin"))
    def origin(self, row: Program) -> str:
        """Where the program is written."""
        if row.source == Program.Source.SIGNATURE:
            return str(_("Signature"))
        registration = registry.get(row.name)
        if registration is None:
            return format_html('<span class="dspyserve-badge dspyserve-failed">✕ {}</span>', _("The code is gone"))
        return registration.origin

    @admin.display(description=_("language model"))
    def runs_on(self, row: Program) -> str:
        """Its own, or the default one."""
        if row.language_model is not None:
            return row.language_model.name
        return str(_("default"))

    @admin.display(description=_("inputs"))
    def inputs(self, row: Program) -> str:
        """The JSON Schema of its inputs."""
        return _schema(row, "input_schema")

    @admin.display(description=_("outputs"))
    def outputs(self, row: Program) -> str:
        """The JSON Schema of its outputs."""
        return _schema(row, "output_schema")

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Say which language model is meant by none."""
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if db_field.name == "language_model" and field is not None:
            default = LanguageModel.objects.filter(is_default=True).first()
            field.empty_label = str(_("Default (%s)") % (default.name if default else "–"))  # type: ignore[attr-defined]
        return field


def _schema(row: Program, name: str) -> str:
    try:
        schema = getattr(catalogue.get(row.name).schema, name)
    except DspyserveError as error:
        return str(error.__cause__ or error)
    return format_html('<pre class="dspyserve-text">{}</pre>', json.dumps(schema, indent=2, ensure_ascii=False))
