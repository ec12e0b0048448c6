"""Language models in the admin."""

from __future__ import annotations

import os
from typing import Any

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from dspyserve.models import LanguageModel


@admin.register(LanguageModel)
class LanguageModelAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Names the variable that holds a key; the key itself is neither stored nor shown."""

    list_display = ("name", "model", "api_base", "key", "is_default", "updated_at")
    search_fields = ("name", "model")
    readonly_fields = ("key", "created_at", "updated_at")
    fieldsets = (
        (None, {"fields": ("name", "model", "is_default")}),
        (_("Connection"), {"fields": ("api_base", "api_key_env", "key")}),
        (_("Calls"), {"fields": ("parameters", "timeout", "num_retries", "cache")}),
        (_("History"), {"fields": ("created_at", "updated_at")}),
    )

    @admin.display(description=_("key"))
    def key(self, row: LanguageModel) -> Any:
        """Whether this process finds a key."""
        if not row.api_key_env:
            return _("none named")
        return _("set") if os.environ.get(row.api_key_env) else _("missing")
