"""Searches that people keep under a name, for themselves or for everybody who sees traces."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, QueryDict
from django.urls import reverse
from django.utils.translation import gettext as _

from dspyserve.admin.traces.list_filter import UnreadableFilter, filter_of, query_of
from dspyserve.models import SavedView

MAX_SHOWN: Final = 50
MAX_NAME: Final = 100
MAX_QUERY: Final = 2_000


def views_of(user: Any) -> list[SavedView]:
    """The views that `user` sees: their own, and those that are shared."""
    found = SavedView.objects.filter(Q(owner=user) | Q(is_shared=True)).select_related("owner")
    return list(found.order_by("name", "pk")[:MAX_SHOWN])


def may_change(user: Any, view: SavedView) -> bool:
    """Whether `user` may rename, share and delete `view`."""
    return bool(user.is_superuser or view.owner_id == user.pk)


def save(model_admin: Any, request: Any) -> HttpResponse:
    """Keep the search `query` as `name`; under a name that the user has already, in place of the old one."""
    _check(model_admin, request)
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    name = request.POST.get("name", "").strip()
    back = reverse("admin:dspyserve_trace_changelist")
    try:
        query = query_of(filter_of(QueryDict(request.POST.get("query", ""))))
    except UnreadableFilter:
        return _told(model_admin, request, back, _("A search that is not understood cannot be kept."))
    if not 0 < len(name) <= MAX_NAME or "\x00" in name or len(query) > MAX_QUERY:
        said = _("A name of 1 to 100 characters is needed, and a search of at most 2,000.")
        return _told(model_admin, request, f"{back}?{query}", said)
    defaults = {"query": query, "is_shared": request.POST.get("is_shared") == "on"}
    SavedView.objects.update_or_create(owner=request.user, name=name, defaults=defaults)
    model_admin.message_user(request, _("The view “%s” is saved.") % name, messages.SUCCESS)
    return HttpResponseRedirect(f"{back}?{query}")


def delete(model_admin: Any, request: HttpRequest, pk: int) -> HttpResponse:
    """Forget the view.

    Raises:
        PermissionDenied: it is somebody else's.
        Http404: there is none, or none that the user sees.
    """
    _check(model_admin, request)
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    view = SavedView.objects.filter(pk=pk).first()
    if view is None or not (view.is_shared or may_change(request.user, view)):
        raise Http404
    if not may_change(request.user, view):
        raise PermissionDenied
    view.delete()
    model_admin.message_user(request, _("The view “%s” is deleted.") % view.name, messages.SUCCESS)
    return HttpResponseRedirect(f"{reverse('admin:dspyserve_trace_changelist')}?{view.query}")


def _check(model_admin: Any, request: HttpRequest) -> None:
    if not model_admin.has_view_permission(request):
        raise PermissionDenied


def _told(model_admin: Any, request: HttpRequest, address: str, text: str) -> HttpResponse:
    model_admin.message_user(request, text, messages.ERROR)
    return HttpResponseRedirect(address)
