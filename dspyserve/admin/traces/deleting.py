"""Deleting traces from the list: those that were chosen, or all that the filter leaves, after a question."""

from __future__ import annotations

import datetime
import uuid
from typing import Any, Final

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dspyserve.access.permissions import VIEW_PAYLOAD
from dspyserve.admin.traces.list_filter import filter_of, text_of
from dspyserve.models import Trace
from dspyserve.tracing import retention
from dspyserve.tracing.search import count_up_to

ACTION: Final = "delete_traces"
CAP: Final = 10_000
_LONGEST: Final = 200
"""Characters that an entry of the history says of its object."""


def act(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Ask, and delete when the question is answered.

    Raises:
        PermissionDenied: the user may not delete traces.
        UnreadableFilter: the address asks for something that is not understood; nothing is deleted then.
    """
    if not model_admin.has_delete_permission(request):
        raise PermissionDenied
    if request.POST.get("action") != ACTION:
        return HttpResponseRedirect(request.get_full_path())
    across = request.POST.get("select_across") == "1"
    # What arrives after the question was asked is not among what was agreed to.
    asked = _asked(request)
    wanted = _all_of_filter(model_admin, request, asked) if across else chosen(model_admin, request)
    if not across and not wanted:
        model_admin.message_user(request, _("No traces were chosen."), messages.WARNING)
        return HttpResponseRedirect(request.get_full_path())
    if not request.POST.get("post"):
        return _question(model_admin, request, wanted, asked)
    if not across:
        model_admin.log_deletions(request, wanted)
    count = retention.delete(wanted.order_by())
    if across:
        _log_all(request, count)
    said = ngettext("%d trace was deleted.", "%d traces were deleted.", count) % count
    model_admin.message_user(request, said, messages.SUCCESS)
    return HttpResponseRedirect(request.get_full_path())


def _asked(request: HttpRequest) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(request.POST.get("asked", "")).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return timezone.now()


def _all_of_filter(model_admin: Any, request: HttpRequest, asked: datetime.datetime) -> QuerySet[Trace]:
    traces = model_admin.get_queryset(request).filter(started_at__lt=asked)
    return filter_of(request.GET).apply(traces, payloads=request.user.has_perm(VIEW_PAYLOAD))


def _log_all(request: Any, count: int) -> None:
    """One line of the history for all of them: how many there were, and the search that they were found by."""
    said = ngettext("%d trace", "%d traces", count) % count
    found_by = text_of(filter_of(request.GET))
    LogEntry.objects.create(
        user_id=request.user.pk,
        content_type=ContentType.objects.get_for_model(Trace),
        object_repr=f"{said}: {found_by}"[:_LONGEST] if found_by else said,
        action_flag=DELETION,
    )


def chosen(model_admin: Any, request: HttpRequest) -> QuerySet[Trace]:
    """The traces whose boxes are ticked."""
    ids = []
    for text in request.POST.getlist(ACTION_CHECKBOX_NAME):
        try:
            ids.append(uuid.UUID(text))
        except ValueError:
            continue
    traces: QuerySet[Trace] = model_admin.get_queryset(request)
    return traces.filter(pk__in=ids) if ids else traces.none()


def _question(model_admin: Any, request: HttpRequest, wanted: QuerySet[Trace], asked: Any) -> HttpResponse:
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": _("Delete traces?"),
        "count": count_up_to(wanted, CAP),
        "cap": CAP,
        "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "select_across": request.POST.get("select_across", "0"),
        "asked": asked.isoformat(),
        "back": request.get_full_path(),
        "media": model_admin.media,
    }
    return TemplateResponse(request, "admin/dspyserve/trace/delete.html", context)
