"""From a bearer token to the API key behind it."""

from __future__ import annotations

import datetime
import hmac
import logging
import threading
import time
from dataclasses import dataclass
from typing import Final

from asgiref.sync import sync_to_async
from django.db import DatabaseError, close_old_connections, connections
from django.db.models import Q
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.utils import timezone

from dspyserve.access.identity import Identity, KnownKey
from dspyserve.conf import settings
from dspyserve.errors import Unauthenticated
from dspyserve.models import APIKey
from dspyserve.models.api_key import digest_of

logger = logging.getLogger(__name__)

_TOUCH: Final = datetime.timedelta(seconds=60)
"""How old the time of the last use may be before it is written again."""


@dataclass(slots=True)
class _Entry:
    row: APIKey
    known: KnownKey
    read_at: float


class Keys:
    """The keys that were used in this process lately, so that a request costs no query and no write.

    A key is read again when what is known is older than the setting `REFRESH`: a revoked one works no longer than that.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    async def aidentify(self, authorization: str) -> Identity | None:
        """Who sends the credentials `Bearer <token>`; None where they are of another kind, or none.

        Raises:
            Unauthenticated: it is unknown, revoked or expired, or its user is inactive. Which of these is not told.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        prefix, _, secret = token.strip().partition(".")
        entry = self._entries.get(prefix)
        if entry is None or time.monotonic() - entry.read_at > settings().refresh:
            entry = await sync_to_async(self._read)(prefix)
        # Compared even where there is no such key, so that the time tells nothing.
        is_right = hmac.compare_digest(digest_of(secret), entry.row.digest if entry else "")
        if entry is None or not is_right or entry.row.has_expired:
            raise Unauthenticated("The API key is not valid.")
        self._note_use(entry)
        return Identity(key=entry.known)

    def forget(self, **_: object) -> None:
        """Read every key again; a signal receiver for changes made in this process."""
        self._entries.clear()

    def _read(self, prefix: str) -> _Entry | None:
        close_old_connections()
        try:
            return self._read_row(prefix)
        except DatabaseError:
            known = self._entries.get(prefix)
            if known is None:
                raise
            logger.warning("API keys could not be read again; what is known stays in use", exc_info=True)
            return known
        finally:
            close_old_connections()

    def _read_row(self, prefix: str) -> _Entry | None:
        row = APIKey.objects.filter(prefix=prefix[:32], is_active=True).select_related("user").first()
        if row is None or row.has_expired or (row.user is not None and not row.user.is_active):
            self._entries.pop(prefix, None)
            return None
        programs = None if row.all_programs else frozenset(row.programs.values_list("pk", flat=True))
        known = KnownKey(
            pk=row.pk,
            user_id=row.user_id,
            scopes=frozenset(row.scopes),
            programs=programs,
            rate_limit=row.rate_limit,
        )
        entry = self._entries[prefix] = _Entry(row, known, time.monotonic())
        return entry

    def _note_use(self, entry: _Entry) -> None:
        now, last = timezone.now(), entry.row.last_used_at
        if last is not None and now - last < _TOUCH:
            return
        entry.row.last_used_at = now
        # Beside the request, which does not wait for it. Once a minute, a thread of its own costs nothing.
        threading.Thread(target=_touch, args=(entry.row.pk, now), name="dspyserve-keys", daemon=True).start()


def _touch(pk: int, now: datetime.datetime) -> None:
    try:
        stale = Q(last_used_at=None) | Q(last_used_at__lt=now - _TOUCH)
        APIKey.objects.filter(stale, pk=pk).update(last_used_at=now)
    except DatabaseError:
        logger.warning("The use of an API key could not be noted", exc_info=True)
    finally:
        connections.close_all()


keys = Keys()

post_save.connect(keys.forget, sender=APIKey)
post_delete.connect(keys.forget, sender=APIKey)
m2m_changed.connect(keys.forget, sender=APIKey.programs.through)
