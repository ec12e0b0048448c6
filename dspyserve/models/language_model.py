"""The language models that programs run on."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, URLValidator
from django.db import models, transaction
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from dspyserve.conf import settings
from dspyserve.secret_patterns import secrets_in

SECRET_PARAMETERS = frozenset(
    {"api_key", "api_base", "base_url", "headers", "extra_headers", "azure_ad_token_provider"}
)
"""Client settings that `parameters` may not hold: a key is named by variable, an address has a field of its own."""

_PORTS = {"http": 80, "https": 443}


class LanguageModel(models.Model):
    """One way to reach a language model: what `dspy.LM` is built from. The key itself is never stored."""

    name = models.SlugField(_("name"), max_length=100, unique=True, help_text=_("The alias that programs choose."))
    model = models.CharField(
        _("model"), max_length=200, help_text=_("Provider and model, such as openai/gpt-5-mini, or demo/echo.")
    )
    api_base = models.CharField(
        _("API base"),
        max_length=500,
        blank=True,
        validators=[URLValidator(schemes=["http", "https"])],
        help_text=_("The base URL of a compatible server; empty for the provider's own."),
    )
    api_key_env = models.CharField(
        _("API key variable"),
        max_length=100,
        blank=True,
        help_text=_("The name of the environment variable that holds the key, such as OPENAI_API_KEY."),
    )
    parameters = models.JSONField(
        _("parameters"),
        default=dict,
        blank=True,
        help_text=_('Sent with every call, such as {"temperature": 0.2, "max_tokens": 2000}.'),
    )
    timeout = models.FloatField(
        _("timeout"), default=60.0, validators=[MinValueValidator(0.1)], help_text=_("Seconds per call.")
    )
    num_retries = models.PositiveSmallIntegerField(
        _("retries"), default=0, help_text=_("How often a failed call is tried again.")
    )
    cache = models.BooleanField(
        _("cache"),
        default=False,
        help_text=_("Answer equal calls from DSPy's cache, shared by all who use this model."),
    )
    is_default = models.BooleanField(
        _("default"), default=False, help_text=_("Programs that choose no language model run on this one.")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated"), auto_now=True)

    class Meta:
        verbose_name = _("language model")
        verbose_name_plural = _("language models")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["is_default"], condition=Q(is_default=True), name="dspyserve_one_default_language_model"
            )
        ]

    def __str__(self) -> str:
        return self.name

    @transaction.atomic
    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; a new default takes the place of the old one."""
        if self.is_default:
            LanguageModel.objects.filter(is_default=True).exclude(pk=self.pk).update(is_default=False)
        super().save(*args, **kwargs)

    def validate_constraints(self, exclude: Any = None) -> None:
        """All but that of the one default, which `save` sees to."""
        super().validate_constraints({*(exclude or ()), "is_default"})

    def clean(self) -> None:
        """Refuse parameters that would hide a secret, and variables that are not meant to hold a key."""
        super().clean()
        errors: dict[str, Any] = {}
        if fault := _parameters_fault(self.parameters):
            errors["parameters"] = fault
        if self.api_key_env and not is_allowed_key_variable(self.api_key_env):
            patterns = ", ".join(settings().api_key_env)
            errors["api_key_env"] = _("Only variables that match %(patterns)s may be named.") % {"patterns": patterns}
        if self.api_base and (fault := api_base_fault(self.api_base)):
            errors["api_base"] = fault
        if self.model.endswith("/"):
            errors["model"] = _("A provider without a model.")
        if errors:
            raise ValidationError(errors)


def is_allowed_key_variable(name: str) -> bool:
    """Whether the setting `API_KEY_ENV` lets a language model read the environment variable `name`."""
    return any(fnmatchcase(name, pattern) for pattern in settings().api_key_env)


def api_base_fault(address: str) -> str | None:
    """What is wrong with `address` in the eyes of the setting `API_BASES`; None where nothing is."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return str(_("Not an address."))
    if "@" in parts.netloc or "\\" in address:
        return str(_("An address without user and password is needed."))
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    start = f"{parts.scheme}://{host}:{port or _PORTS.get(parts.scheme, '')}"
    if host and any(fnmatchcase(start, pattern) for pattern in settings().api_bases):
        return None
    return str(_("%(start)s matches none of the setting API_BASES.") % {"start": start})


def _parameters_fault(parameters: Any) -> str | None:
    if not isinstance(parameters, dict):
        return str(_("A JSON object is needed."))
    if secret := sorted({*(SECRET_PARAMETERS & parameters.keys()), *secrets_in(parameters)}):
        return str(_("Not allowed here: %(names)s.") % {"names": ", ".join(secret)})
    if not _is_storable(parameters):
        return str(_("It holds numbers or characters that cannot be stored."))
    return None


def _is_storable(parameters: dict[str, Any]) -> bool:
    try:
        text = json.dumps(parameters, allow_nan=False, ensure_ascii=False)
        text.encode()
    except ValueError:
        return False
    return "\\u0000" not in text
