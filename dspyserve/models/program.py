"""The programs that are served, and the versions of their state."""

from __future__ import annotations

from django.conf import settings as django_settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from dspyserve.models.language_model import LanguageModel


class Program(models.Model):
    """A DSPy program under a name: registered in code, or made from a signature string."""

    class Source(models.TextChoices):
        CODE = "code", _("Code")
        SIGNATURE = "signature", _("Signature")

    class Module(models.TextChoices):
        PREDICT = "predict", _("Predict")
        CHAIN_OF_THOUGHT = "chain_of_thought", _("Chain of thought")

    class Adapter(models.TextChoices):
        DEFAULT = "", _("DSPy's default")
        CHAT = "chat", _("Chat")
        JSON = "json", _("JSON")
        XML = "xml", _("XML")

    class Execution(models.TextChoices):
        AUTO = "auto", _("As the program is written")
        THREAD = "thread", _("In a thread")
        ASYNC = "async", _("On the event loop")

    class TraceLevel(models.TextChoices):
        FULL = "full", _("Full")
        METADATA = "metadata", _("Metadata, no texts")
        OFF = "off", _("Off")

    class Access(models.TextChoices):
        PUBLIC = "public", _("Everybody")
        AUTHENTICATED = "authenticated", _("Authenticated callers")
        RESTRICTED = "restricted", _("Callers with the permission to run it")

    name = models.SlugField(_("name"), max_length=100, unique=True, help_text=_("Part of the program's address."))
    title = models.CharField(_("title"), max_length=200, blank=True)
    description = models.TextField(_("description"), blank=True)
    source = models.CharField(_("source"), max_length=20, choices=Source, default=Source.SIGNATURE, editable=False)
    signature = models.CharField(
        _("signature"), max_length=2000, blank=True, help_text=_("Such as: question -> answer, confidence: float")
    )
    instructions = models.TextField(_("instructions"), blank=True)
    module = models.CharField(_("module"), max_length=30, choices=Module, default=Module.PREDICT)
    language_model = models.ForeignKey(
        LanguageModel,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="programs",
        verbose_name=_("language model"),
        help_text=_("Empty: the default one."),
    )
    adapter = models.CharField(_("adapter"), max_length=10, choices=Adapter, blank=True, default=Adapter.DEFAULT)
    execution = models.CharField(_("execution"), max_length=10, choices=Execution, default=Execution.AUTO)
    max_concurrency = models.PositiveIntegerField(
        _("concurrency"), null=True, blank=True, validators=[MinValueValidator(1)], help_text=_("Per process.")
    )
    max_queue = models.PositiveIntegerField(
        _("queue"), null=True, blank=True, help_text=_("Executions that may wait, per process.")
    )
    timeout = models.FloatField(
        _("timeout"), null=True, blank=True, validators=[MinValueValidator(0.01)], help_text=_("Seconds per execution.")
    )
    trace_level = models.CharField(_("traces"), max_length=10, choices=TraceLevel, default=TraceLevel.FULL)
    is_enabled = models.BooleanField(_("enabled"), default=True)
    access = models.CharField(_("access"), max_length=20, choices=Access, default=Access.AUTHENTICATED)
    users = models.ManyToManyField(
        django_settings.AUTH_USER_MODEL,
        blank=True,
        related_name="+",
        verbose_name=_("users"),
        help_text=_("May run it while it is restricted, without the permission to run every restricted program."),
    )
    groups = models.ManyToManyField(
        "auth.Group", blank=True, related_name="+", verbose_name=_("groups"), help_text=_("Likewise.")
    )
    active_version = models.ForeignKey(
        "ProgramVersion",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("active version"),
        help_text=_("Empty: the program as it is written."),
    )
    declared = models.JSONField(
        default=dict, editable=False, help_text=_("What the code said at the last synchronisation.")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated"), auto_now=True)

    class Meta:
        verbose_name = _("program")
        verbose_name_plural = _("programs")
        ordering = ["name"]
        permissions = [("run_program", _("Can run restricted programs"))]

    def __str__(self) -> str:
        return self.title or self.name

    def clean(self) -> None:
        """A program made from a signature needs one, and a version belongs to its own program."""
        super().clean()
        if self.source == self.Source.SIGNATURE and not self.signature.strip():
            raise ValidationError({"signature": _("A signature is needed, such as: question -> answer")})
        if self.active_version is not None and self.active_version.program_id != self.pk:
            raise ValidationError({"active_version": _("This version belongs to another program.")})


class ProgramVersion(models.Model):
    """A saved state of a program: instructions and demos as `dump_state()` gives them. Never changed once saved."""

    program = models.ForeignKey(Program, on_delete=models.CASCADE, related_name="versions", verbose_name=_("program"))
    number = models.PositiveIntegerField(_("number"))
    state = models.JSONField(_("state"))
    signature_hash = models.CharField(_("signature hash"), max_length=64, blank=True)
    dspy_version = models.CharField(_("DSPy version"), max_length=40, blank=True)
    note = models.TextField(_("note"), blank=True)
    metrics = models.JSONField(_("metrics"), default=dict, blank=True)
    author = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("author"),
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("program version")
        verbose_name_plural = _("program versions")
        ordering = ["program", "-number"]
        constraints = [models.UniqueConstraint(fields=["program", "number"], name="dspyserve_version_number")]

    def __str__(self) -> str:
        return f"{self.program.name} v{self.number}"
