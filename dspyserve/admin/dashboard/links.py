"""Addresses of the list of traces that show what a figure was made from."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from django.urls import reverse
from django.utils import timezone

FAILED: Final = "-status:succeeded -status:cancelled"
"""What counts as a failure, in the language of the search."""


@dataclass(frozen=True, slots=True)
class ListLink:
    """The traces of a time, of one program and model where they are named."""

    since: datetime.datetime
    until: datetime.datetime
    program: str = ""
    model: str = ""
    error_type: str = ""
    only_failures: bool = False

    def __str__(self) -> str:
        query = {
            "program": self.program,
            "model": self.model,
            "error_type": self.error_type,
            "since": timezone.localtime(self.since).isoformat(),
            "until": timezone.localtime(self.until).isoformat(),
            "q": FAILED if self.only_failures else "",
        }
        given = {name: value for name, value in query.items() if value}
        return f"{reverse('admin:dspyserve_trace_changelist')}?{urlencode(given)}"
