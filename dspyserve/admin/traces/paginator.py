"""Pages of a table that is too long to be counted."""

from __future__ import annotations

from functools import cached_property

from django.core.paginator import Paginator


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than `CAP`: a full count of a million rows costs more than the page."""

    CAP = 10_000

    @cached_property
    def count(self) -> int:
        """The number of rows, at most one above `CAP`."""
        return int(self.object_list.order_by()[: self.CAP + 1].count())  # type: ignore[attr-defined]
