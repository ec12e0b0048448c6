"""Keys that clients call with, in place of a session."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from dspyserve.conf import parse_rate
from dspyserve.models.program import Program

TOKEN_START = "dsk_"  # noqa: S105 - how every token begins, so that scanners and the sanitiser recognise one
_PREFIX_BYTES, _SECRET_BYTES = 6, 32


class APIKey(models.Model):
    """What a token may do. The token itself is shown once, when it is made; only its prefix and its hash are stored.

    The secret part has 256 random bits, so a plain SHA-256 of it cannot be turned back.
    """

    class Scope(models.TextChoices):
        RUN = "run", _("Run programs")
        VIEW_TRACES = "view_traces", _("View traces, without texts")
        VIEW_PAYLOADS = "view_payloads", _("View inputs, outputs and messages of traces")
        GIVE_FEEDBACK = "give_feedback", _("Give feedback on traces")
        EXPORT = "export", _("Export traces")

    name = models.CharField(_("name"), max_length=100, help_text=_("Who or what calls with it."))
    prefix = models.CharField(_("prefix"), max_length=32, unique=True, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    user = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="dspyserve_api_keys",
        verbose_name=_("user"),
        help_text=_("In whose name the key runs programs. It is refused while this user is inactive."),
    )
    scopes = models.JSONField(_("scopes"), default=list, blank=True)
    all_programs = models.BooleanField(
        _("all programs"), default=False, help_text=_("Every program, restricted and future ones too.")
    )
    programs = models.ManyToManyField(
        Program,
        blank=True,
        related_name="api_keys",
        verbose_name=_("programs"),
        help_text=_("The only programs that the key reaches, unless it is for all."),
    )
    rate_limit = models.CharField(
        _("rate limit"),
        max_length=40,
        blank=True,
        help_text=_("Such as 600/min, in place of the setting RATE_LIMIT_KEY."),
    )
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    is_active = models.BooleanField(_("active"), default=True, help_text=_("Clear this to revoke the key."))
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, editable=False)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ["name", "prefix"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    def clean(self) -> None:
        """Refuse scopes that do not exist and limits that cannot be read."""
        super().clean()
        errors: dict[str, Any] = {}
        scopes = self.scopes if isinstance(self.scopes, list) else [self.scopes]
        if unknown := [str(scope) for scope in scopes if scope not in self.Scope.values]:
            errors["scopes"] = _("No such scope: %(names)s.") % {"names": ", ".join(unknown)}
        try:
            parse_rate(self.rate_limit)
        except ValueError as error:
            errors["rate_limit"] = str(error)
        if errors:
            raise ValidationError(errors)

    def issue(self) -> str:
        """Give the key its token, which is returned and kept nowhere."""
        self.prefix = TOKEN_START + secrets.token_hex(_PREFIX_BYTES)
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        self.digest = digest_of(secret)
        return f"{self.prefix}.{secret}"

    @property
    def has_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= timezone.now()


def digest_of(secret: str) -> str:
    """What is stored of the secret part of a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
