"""Traces added up by hour and by day, which the dashboard reads instead of the traces."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class TraceRollup(models.Model):
    """What one writer has stored of one program on one model in one period. Rows of several writers are added up.

    `durations` and `first_tokens` are histograms: the number of a bucket, as text, and how many traces fell into it.
    """

    class Period(models.TextChoices):
        HOUR = "hour", _("Hour")
        DAY = "day", _("Day")

    period = models.CharField(_("period"), max_length=4, choices=Period)
    start = models.DateTimeField(_("start"))
    program_name = models.CharField(_("program name"), max_length=100)
    model = models.CharField(_("model"), max_length=200, blank=True)
    writer = models.CharField(_("writer"), max_length=32, blank=True)
    traces = models.PositiveIntegerField(_("traces"), default=0)
    failures = models.PositiveIntegerField(_("failures"), default=0)
    input_tokens = models.PositiveBigIntegerField(_("input tokens"), default=0)
    output_tokens = models.PositiveBigIntegerField(_("output tokens"), default=0)
    cost = models.FloatField(_("cost"), default=0.0, help_text=_("US dollars, as far as it is known."))
    unpriced = models.PositiveIntegerField(_("traces of unknown cost"), default=0)
    durations = models.JSONField(_("durations"), default=dict)
    first_tokens = models.JSONField(_("first tokens"), default=dict)

    class Meta:
        verbose_name = _("rollup")
        verbose_name_plural = _("rollups")
        ordering = ["start"]
        constraints = [
            models.UniqueConstraint(
                fields=["period", "start", "program_name", "model", "writer"], name="dspyserve_one_rollup_per_writer"
            )
        ]

    def __str__(self) -> str:
        return f"{self.program_name} {self.start:%Y-%m-%d %H:%M}"
