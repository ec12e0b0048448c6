"""The Django app."""

from __future__ import annotations

import os

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class DspyserveConfig(AppConfig):
    """Finds the programs of all apps, and keeps their rows in step after every migrate."""

    name = "dspyserve"
    verbose_name = _("DSPy programs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import every app's `dspy_programs` module, register the system checks and the receivers."""
        # Otherwise the first call of an LM waits up to 5 s for a price list from the internet.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")
        # Imports of models, which only work from here on.
        from dspyserve import checks  # noqa: F401, PLC0415
        from dspyserve.execution.progress_bars import share_progress_bars  # noqa: PLC0415
        from dspyserve.programs.registry import autodiscover  # noqa: PLC0415
        from dspyserve.programs.synchronise import after_migrate  # noqa: PLC0415

        share_progress_bars()
        autodiscover()
        post_migrate.connect(after_migrate, sender=self)
