"""Trace ids that callers bring along."""

from __future__ import annotations

import logging
import uuid
from typing import Final

from django.core.cache import cache
from django.db import DatabaseError, close_old_connections

from dspyserve.models import Trace
from dspyserve.tracing import store

logger = logging.getLogger(__name__)

_UNTIL_STORED: Final = 3600
"""Seconds for which a claim is remembered: longer than any execution takes to be stored."""


def claim(trace_id: uuid.UUID) -> bool:
    """Whether the caller's `trace_id` is free, and from now on taken.

    Processes that share no cache may both be given an id; `tracing.store` then tells the second trace apart.
    """
    try:
        is_first = cache.add(f"dspyserve:trace:{trace_id.hex}", 1, timeout=_UNTIL_STORED)
    except Exception:
        logger.warning("A trace id cannot be claimed: the cache is away", exc_info=True)
        return False
    try:
        return is_first and not Trace.objects.using(store.database()).filter(pk=trace_id).exists()
    except DatabaseError:
        logger.warning("A trace id cannot be claimed: the database is away", exc_info=True)
        return False
    finally:
        # Nobody else may do it: runs also begin outside of requests.
        close_old_connections()
