"""Filters of the trace list. None of them reads the traces to find its choices."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from dspyserve.models import Program, Trace
from dspyserve.tracing.search import trace_id_of


class WindowFilter(admin.SimpleListFilter):
    """The time window: without it, every search would read the whole table."""

    title = _("time")
    parameter_name = "window"
    default = "7d"
    _windows = {"1h": 1, "24h": 24, "7d": 24 * 7, "30d": 24 * 30}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """The windows to choose from."""
        return [
            ("1h", _("Last hour")),
            ("24h", _("Last 24 hours")),
            ("7d", _("Last 7 days")),
            ("30d", _("Last 30 days")),
            ("all", _("Any time")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Trace]) -> QuerySet[Trace]:
        """The traces within the window; a trace that is asked for by its id is found at any time."""
        hours = self._windows.get(self.value() or self.default)
        if hours is None or trace_id_of(request.GET.get(SEARCH_VAR, "")):
            return queryset
        return queryset.filter(started_at__gte=timezone.now() - datetime.timedelta(hours=hours))

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Without the choice "all" that other filters begin with: the default is a window too."""
        for value, title in self.lookup_choices:
            yield {
                "selected": value == (self.value() or self.default),
                "query_string": changelist.get_query_string({self.parameter_name: value}),
                "display": title,
            }


class ProgramFilter(admin.SimpleListFilter):
    """The program, from the table of programs."""

    title = _("program")
    parameter_name = "program"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """All programs by name."""
        return [(str(pk), name) for pk, name in Program.objects.order_by("name").values_list("pk", "name")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Trace]) -> QuerySet[Trace]:
        """The traces of the program."""
        value = self.value()
        return queryset.filter(program_id=value) if value and value.isdigit() else queryset


class TransportFilter(admin.SimpleListFilter):
    """The door."""

    title = _("transport")
    parameter_name = "transport"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """All doors."""
        return list(Trace.Transport.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Trace]) -> QuerySet[Trace]:
        """The traces that came through the door."""
        return queryset.filter(transport=self.value()) if self.value() else queryset


class ErrorFilter(admin.SimpleListFilter):
    """Whether something went wrong in the run, even where it succeeded in the end."""

    title = _("errors")
    parameter_name = "errors"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """With and without."""
        return [("yes", _("With errors")), ("no", _("Without errors"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Trace]) -> QuerySet[Trace]:
        """The traces with or without errors."""
        if self.value() == "yes":
            return queryset.filter(error_count__gt=0)
        return queryset.filter(error_count=0) if self.value() == "no" else queryset
