"""What every execution leaves behind: a narrow trace, narrow spans, and their payloads apart.

List and tree pages read the narrow tables alone. Roll-ups (tokens, cost, counts) are written once, at the end of a run.
"""

from __future__ import annotations

from django.conf import settings as django_settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from dspyserve.models.program import Program, ProgramVersion


class Trace(models.Model):
    """One execution. The id is a UUIDv7 whose 32 hex digits are the W3C trace id.

    The references to program, version, user and API key carry no database constraint: a trace outlives what it points
    to, and a batch of traces must not fail because one of their users was deleted a moment ago. `batch_id` is shared by
    the items of a batch request.
    """

    class Status(models.TextChoices):
        RUNNING = "running", _("Running")
        SUCCEEDED = "succeeded", _("Succeeded")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")
        TIMED_OUT = "timed_out", _("Timed out")
        ABANDONED = "abandoned", _("Abandoned")

    class Transport(models.TextChoices):
        REST = "rest", _("REST")
        SSE = "sse", _("Event stream")
        WEBSOCKET = "websocket", _("WebSocket")
        BATCH = "batch", _("Batch")
        PYTHON = "python", _("Python")
        COMMAND = "command", _("Command")

    id = models.UUIDField(primary_key=True, editable=False)
    program = models.ForeignKey(
        Program,
        on_delete=models.SET_NULL,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="traces",
        verbose_name=_("program"),
    )
    program_name = models.CharField(_("program name"), max_length=100)
    version = models.ForeignKey(
        ProgramVersion,
        on_delete=models.SET_NULL,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("version"),
    )
    version_number = models.PositiveIntegerField(_("version number"), null=True)
    model = models.CharField(_("model"), max_length=200, blank=True)
    status = models.CharField(_("status"), max_length=12, choices=Status)
    transport = models.CharField(_("transport"), max_length=12)
    user = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    api_key = models.ForeignKey(
        "APIKey",
        on_delete=models.SET_NULL,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("API key"),
    )
    environment = models.CharField(_("environment"), max_length=50, blank=True)
    session_id = models.CharField(_("session"), max_length=200, blank=True)
    batch_id = models.CharField(_("batch"), max_length=32, blank=True)
    linked_trace_id = models.CharField(
        _("linked trace"),
        max_length=32,
        blank=True,
        help_text=_("The trace id that the caller gave, where another execution has it already."),
    )
    request_id = models.CharField(_("request"), max_length=200, blank=True)
    tags = models.JSONField(_("tags"), default=list)
    metadata = models.JSONField(_("metadata"), default=dict)
    started_at = models.DateTimeField(_("started"))
    ended_at = models.DateTimeField(_("ended"), null=True)
    duration_ms = models.FloatField(_("duration"), null=True, help_text=_("Milliseconds."))
    first_token_ms = models.FloatField(_("first token"), null=True, help_text=_("Milliseconds from the start."))
    input_preview = models.CharField(_("input"), max_length=200, blank=True)
    output_preview = models.CharField(_("output"), max_length=200, blank=True)
    error_type = models.CharField(_("error type"), max_length=200, blank=True)
    error_code = models.CharField(_("error code"), max_length=40, blank=True)
    error_message = models.TextField(_("error message"), blank=True)
    span_count = models.PositiveIntegerField(_("spans"), default=0)
    error_count = models.PositiveIntegerField(_("errors"), default=0)
    lm_calls = models.PositiveIntegerField(_("LM calls"), default=0)
    input_tokens = models.PositiveIntegerField(_("input tokens"), null=True)
    output_tokens = models.PositiveIntegerField(_("output tokens"), null=True)
    cached_tokens = models.PositiveIntegerField(_("cached tokens"), null=True)
    cost = models.FloatField(_("cost"), null=True, help_text=_("US dollars; empty where it is not known."))
    truncation = models.JSONField(_("truncation"), default=dict)
    replay_of = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="replays",
        verbose_name=_("replay of"),
    )

    class Meta:
        verbose_name = _("trace")
        verbose_name_plural = _("traces")
        ordering = ["-started_at", "-id"]
        permissions = [
            ("view_payload", _("Can view inputs, outputs and messages of traces")),
            ("export_trace", _("Can export traces")),
            ("replay_trace", _("Can run traces again with other inputs, language models and versions")),
        ]
        indexes = [
            models.Index(fields=["-started_at", "-id"], name="dspyserve_trace_time"),
            models.Index(fields=["program", "-started_at", "-id"], name="dspyserve_trace_program"),
            models.Index(fields=["program_name", "-started_at", "-id"], name="dspyserve_trace_name"),
            models.Index(
                fields=["-started_at", "-id"], condition=~Q(status="succeeded"), name="dspyserve_trace_failures"
            ),
            models.Index(
                fields=["session_id", "-started_at", "-id"], condition=~Q(session_id=""), name="dspyserve_trace_session"
            ),
            models.Index(fields=["batch_id"], condition=~Q(batch_id=""), name="dspyserve_trace_batch"),
            models.Index(
                fields=["user", "-started_at", "-id"], condition=Q(user__isnull=False), name="dspyserve_trace_user"
            ),
            models.Index(
                fields=["replay_of", "-started_at", "-id"],
                condition=Q(replay_of__isnull=False),
                name="dspyserve_trace_replays",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.program_name} {self.id.hex}"


class Span(models.Model):
    """One step of a run: the run itself, a module, an LM call, a tool, an adapter's failed parse.

    `parent_id` is a plain string, so that a span whose parent is missing still shows, at the root.
    """

    class Status(models.TextChoices):
        OK = "ok", _("OK")
        ERROR = "error", _("Error")
        UNFINISHED = "unfinished", _("Unfinished")

    trace = models.ForeignKey(
        Trace, on_delete=models.CASCADE, related_name="spans", db_index=False, verbose_name=_("trace")
    )
    sequence = models.PositiveIntegerField(_("sequence"))
    span_id = models.CharField(_("span id"), max_length=16)
    parent_id = models.CharField(_("parent id"), max_length=16, blank=True)
    kind = models.CharField(_("kind"), max_length=20)
    name = models.CharField(_("name"), max_length=200)
    status = models.CharField(_("status"), max_length=12, choices=Status, default=Status.OK)
    started_at = models.DateTimeField(_("started"))
    duration_ms = models.FloatField(_("duration"), null=True, help_text=_("Milliseconds."))
    first_token_ms = models.FloatField(_("first token"), null=True, help_text=_("Milliseconds from the span's start."))
    model = models.CharField(_("model"), max_length=200, blank=True)
    input_tokens = models.PositiveIntegerField(_("input tokens"), null=True)
    output_tokens = models.PositiveIntegerField(_("output tokens"), null=True)
    cached_tokens = models.PositiveIntegerField(_("cached tokens"), null=True)
    cost = models.FloatField(_("cost"), null=True)
    is_cached = models.BooleanField(_("from the cache"), default=False)
    error_type = models.CharField(_("error type"), max_length=200, blank=True)

    class Meta:
        verbose_name = _("span")
        verbose_name_plural = _("spans")
        ordering = ["trace", "sequence"]
        constraints = [models.UniqueConstraint(fields=["trace", "sequence"], name="dspyserve_span_sequence")]
        indexes = [models.Index(fields=["span_id"], name="dspyserve_span_id")]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class SpanPayload(models.Model):
    """What went into a span and what came out: large, sanitised, and read for one span at a time."""

    span = models.OneToOneField(
        Span, on_delete=models.CASCADE, primary_key=True, related_name="payload", verbose_name=_("span")
    )
    inputs = models.JSONField(_("inputs"), null=True)
    outputs = models.JSONField(_("outputs"), null=True)
    messages = models.JSONField(_("messages"), null=True)
    attributes = models.JSONField(_("attributes"), default=dict)

    class Meta:
        verbose_name = _("span payload")
        verbose_name_plural = _("span payloads")

    def __str__(self) -> str:
        return f"payload of span {self.pk}"
