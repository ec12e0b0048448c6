"""Filters of the trace list under a name."""

from __future__ import annotations

from django.conf import settings as django_settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class SavedView(models.Model):
    """A search over the trace list that its owner gave a name; `query` is the query string of the list's address."""

    name = models.CharField(_("name"), max_length=100)
    query = models.CharField(_("query"), max_length=2000, blank=True)
    owner = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", verbose_name=_("owner")
    )
    is_shared = models.BooleanField(_("shared"), default=False, help_text=_("Everybody who sees traces sees it."))
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("saved view")
        verbose_name_plural = _("saved views")
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["owner", "name"], name="dspyserve_one_view_of_a_name")]

    def __str__(self) -> str:
        return self.name
