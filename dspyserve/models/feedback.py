"""What people and programs think of an execution."""

from __future__ import annotations

from django.conf import settings as django_settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from dspyserve.models.api_key import APIKey
from dspyserve.models.trace import Trace


class Feedback(models.Model):
    """One opinion, under a name such as `helpful`, by one author, of a trace or of one of its spans.

    `author` says who as text, so that one author has one opinion whatever became of the user or the key.
    """

    trace = models.ForeignKey(Trace, on_delete=models.CASCADE, related_name="feedback", verbose_name=_("trace"))
    span_id = models.CharField(_("span id"), max_length=16, blank=True)
    name = models.CharField(_("name"), max_length=100)
    score = models.FloatField(_("score"), null=True)
    label = models.CharField(_("label"), max_length=200, blank=True)
    comment = models.TextField(_("comment"), blank=True)
    correction = models.JSONField(_("correction"), null=True, help_text=_("Output fields as they should have been."))
    author = models.CharField(_("author"), max_length=100)
    user = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("user"),
    )
    api_key = models.ForeignKey(
        APIKey, on_delete=models.SET_NULL, null=True, related_name="+", verbose_name=_("API key")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated"), auto_now=True)

    class Meta:
        verbose_name = _("feedback")
        verbose_name_plural = _("feedback")
        ordering = ["trace", "name", "author"]
        constraints = [
            models.UniqueConstraint(
                fields=["trace", "span_id", "name", "author"], name="dspyserve_one_feedback_per_author"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} by {self.author}"
