"""How much a caller may ask for: fixed windows, counted in Django's cache, for all processes that share it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.core.cache import cache

from dspyserve.access.identity import Identity
from dspyserve.conf import parse_rate, settings
from dspyserve.errors import Throttled

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of `limit` requests per `window` seconds; `reset` is when the window ends, in seconds from now."""

    limit: int
    window: int
    remaining: int
    reset: int

    def headers(self) -> dict[str, str]:
        """As the IETF draft "RateLimit header fields for HTTP" writes it."""
        return {
            "RateLimit-Policy": f'"default";q={self.limit};w={self.window}',
            "RateLimit": f'"default";r={self.remaining};t={self.reset}',
        }


class QuotaExceeded(Throttled):
    """The window is used up; `quota` tells when it ends."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        super().__init__(
            f"At most {quota.limit} requests in {quota.window} seconds.", retry_after=float(max(1, quota.reset))
        )


async def spend(identity: Identity, address: str, cost: int = 1) -> Quota | None:
    """Count `cost` requests of a caller, who comes from `address`; None where nothing limits it.

    While the cache is away nothing is limited: a program is served rather than refused.

    Raises:
        QuotaExceeded: the caller has no more left.
    """
    rate = parse_rate(_rate(identity))
    if rate is None:
        return None
    caller = f"anonymous:{address}" if identity.is_anonymous else identity.name
    quota = await sync_to_async(_count, thread_sensitive=False)(caller, *rate, cost)
    if quota is not None and quota.remaining < 0:
        raise QuotaExceeded(Quota(quota.limit, quota.window, 0, quota.reset))
    return quota


def _rate(identity: Identity) -> str:
    if identity.key is not None:
        return identity.key.rate_limit or settings().rate_limit_key
    return settings().rate_limit_anonymous if identity.user is None else settings().rate_limit_user


def _count(caller: str, limit: int, window: int, cost: int) -> Quota | None:
    now = time.time()
    start = int(now // window) * window
    name = f"dspyserve:rate:{caller}:{window}:{start}"
    try:
        cache.add(name, 0, timeout=window + 1)
        used = cache.incr(name, cost)
        if used > limit:
            # What is refused does not count, so that a smaller request may still fit.
            cache.decr(name, cost)
    except Exception:
        logger.warning("Requests cannot be counted: the cache is away", exc_info=True)
        return None
    return Quota(limit, window, limit - used, max(1, round(start + window - now)))
