"""What the dashboard shows: the time, and one program or model."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.utils import timezone
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _

from dspyserve.admin.plain_text import visible
from dspyserve.tracing.rollups import Window

WINDOWS: Final = {
    "24h": (datetime.timedelta(hours=24), _("24 hours")),
    "7d": (datetime.timedelta(days=7), _("7 days")),
    "30d": (datetime.timedelta(days=30), _("30 days")),
    "90d": (datetime.timedelta(days=90), _("90 days")),
}
DEFAULT: Final = "7d"
LONGEST: Final = datetime.timedelta(days=2 * 366)


class Moment(forms.DateTimeField):
    """A time in the current time zone."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be shown; empty names stand for all."""

    window: Window
    name: str
    """Of the window, empty where it was given by its ends."""
    program: str
    model: str


class DashboardForm(forms.Form):
    """Either a window up to now, or a time from and until."""

    window = forms.ChoiceField(
        choices=[(name, title) for name, (_length, title) in WINDOWS.items()], required=False, widget=forms.HiddenInput
    )
    program = forms.CharField(label=_("Program"), required=False, max_length=100)
    model = forms.CharField(label=_("Model"), required=False, max_length=200)
    since = Moment(label=_("From"), required=False)
    until = Moment(label=_("Until"), required=False)

    def clean(self) -> dict[str, Any]:
        """The ends of a time are in order, and not too far apart."""
        cleaned = super().clean() or {}
        since, until = cleaned.get("since"), cleaned.get("until") or timezone.now()
        if since is not None and not since < until:
            self.add_error("until", _t("This is before the beginning."))
        elif since is not None and until - since > LONGEST:
            self.add_error("since", _t("At most two years are shown."))
        return cleaned

    def choice(self) -> Choice:
        """What is asked for; where some of that cannot be read, what is shown as a rule."""
        given = self.cleaned_data if self.is_valid() else {}
        program, model = given.get("program", ""), given.get("model", "")
        since, until = given.get("since"), given.get("until")
        if since is None and until is None:
            name = given.get("window") or DEFAULT
            return Choice(_up_to_now(WINDOWS[name][0]), name, program, model)
        until = until or timezone.now()
        since = since or until - WINDOWS[DEFAULT][0]
        return Choice(Window.around(since, until), "", program, model)

    def offer(self, programs: Iterable[str], models: Iterable[str]) -> None:
        """Let one of these be chosen."""
        for name, every, found in (("program", _("All programs"), programs), ("model", _("All models"), models)):
            chosen = str(self.data.get(name, ""))
            options = sorted({*found, chosen} - {""})
            self.fields[name].widget = forms.Select(choices=[("", every), *((each, visible(each)) for each in options)])


def _up_to_now(length: datetime.timedelta) -> Window:
    now = timezone.now()
    step = Window.around(now - length, now).step
    # The hour or the day that is under way is the last one.
    return Window.around(now - length + step, now)
