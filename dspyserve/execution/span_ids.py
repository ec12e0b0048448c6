"""The ids of the spans of one run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import uuid_utils


def span_ids() -> Iterator[str]:
    """16 hex digits, as W3C asks, never all zeros: one after the other, from a random one on.

    Next to each other in the index of a database, they are written in one place. Threads may share the iterator.
    """
    # The second half of a UUID begins with the bits 1 and 0: it is not zero, and far from the last number.
    start = int(uuid_utils.uuid4().hex[16:], 16)
    return map("{:016x}".format, count(start))
