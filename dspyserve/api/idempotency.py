"""The header `Idempotency-Key`: a request that a client repeats is executed once, and answered the same each time."""

from __future__ import annotations

import asyncio
import base64
import contextvars
import datetime
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from channels.db import database_sync_to_async
from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings as django_settings
from django.db import DatabaseError, IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.http.request import HttpHeaders
from django.utils import timezone
from django.utils.crypto import salted_hmac

from dspyserve.access.identity import Identity
from dspyserve.api.responses import problem_response
from dspyserve.errors import InvalidHeader, KeyReused, Overloaded, RequestError, RequestInFlight
from dspyserve.execution.own_thread import leave_own_thread
from dspyserve.models import IdempotencyKey
from dspyserve.problems import as_request_error

logger = logging.getLogger(__name__)

HEADER: Final = "Idempotency-Key"
_META: Final = HttpHeaders.to_wsgi_name(HEADER)
REPLAYED: Final = "Idempotent-Replayed"
KEEP: Final = datetime.timedelta(hours=24)
LEASE: Final = datetime.timedelta(seconds=60)
"""How long a request counts as under way after its process gave the last sign of life."""

_RENEW: Final = 15.0
_PURGE_EVERY: Final = 60.0
_PURGE: Final = 500
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_KEPT_HEADERS: Final = ("Content-Type", "X-Trace-Id", "X-Batch-Id")
_CANCELLED: Final = 499

# A request with a key may outlast its client, and then nothing else gives its database connection back: everything
# here goes through Channels' `database_sync_to_async`, which does.

_under_way: set[asyncio.Task[Any]] = set()


async def once(request: HttpRequest, identity: Identity, answer: Callable[[], Awaitable[HttpResponse]]) -> HttpResponse:
    """The answer that `answer` gives, or the stored one where the request came before with the same key.

    With a key the request goes on when its client leaves: the client will come back for the answer.

    Raises:
        InvalidHeader: the key cannot be one.
        KeyReused: it came before, with another body.
        RequestInFlight: it came before, and is not answered yet.
        RequestError: those of `answer`, where there is no key.
    """
    claim = await begin(request, identity)
    if claim is None:
        return await answer()
    if isinstance(claim, HttpResponse):
        return claim
    return await asyncio.shield(go_on(_answer_once(claim, answer)))


def go_on(work: Any) -> asyncio.Task[Any]:
    """`work` as a task that no request takes along when it is cancelled. The loop itself holds tasks weakly."""
    context = contextvars.copy_context()
    context.run(leave_own_thread)
    task = asyncio.get_running_loop().create_task(work, context=context)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return task


async def begin(request: HttpRequest, identity: Identity, *, variant: str = "") -> Claim | HttpResponse | None:
    """None without a key, the stored answer of a repeated request, else the right to answer it; raises as `once`.

    `variant` tells answers of different forms to equal bodies apart.
    """
    key = request.META.get(_META)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise InvalidHeader(f"{HEADER} must be 1 to 255 visible ASCII characters.")
    route = f"{identity.name} {request.method} {request.path} {key}"
    digest = hashlib.sha256(route.encode()).hexdigest()
    body_digest = hashlib.sha256(f"{variant}\n{key}\n".encode() + request.body).hexdigest()
    try:
        found = await database_sync_to_async(_claim)(digest, body_digest)
    except DatabaseError as error:
        raise Overloaded("Repeated requests cannot be told apart at the moment.", retry_after=1.0) from error
    return Claim(found.pk, key) if found.status is None else _stored_answer(found, key)


@dataclass(slots=True)
class Claim:
    """The right to answer a request. While it is held, the row is renewed."""

    row_id: int
    key: str
    _renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Claim:
        self._renewing = go_on(self._renew())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._renewing is not None:
            self._renewing.cancel()

    async def keep(self, response: HttpResponse) -> None:
        """Store `response` where an execution began; else the request may be tried again."""
        try:
            if "X-Trace-Id" in response or "X-Batch-Id" in response:
                await database_sync_to_async(_store)(self.row_id, self.key, response)
            else:
                await self.give_up()
        except DatabaseError:
            logger.exception("The answer to a request with an idempotency key could not be stored")

    async def give_up(self) -> None:
        """Nothing was executed, or to no end: the request may be tried again."""
        with suppress(DatabaseError):
            await database_sync_to_async(_forget)(self.row_id)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW)
            with suppress(DatabaseError):
                await database_sync_to_async(_extend)(self.row_id)


async def _answer_once(claim: Claim, answer: Callable[[], Awaitable[HttpResponse]]) -> HttpResponse:
    async with claim:
        try:
            response = await answer()
        except Exception as error:
            if not isinstance(error, RequestError):
                logger.exception("An API call failed")
            response = problem_response(as_request_error(error))
        if response.status_code == _CANCELLED:
            await claim.give_up()
        else:
            await claim.keep(response)
        return response


def _claim(digest: str, body_digest: str) -> IdempotencyKey:
    _purge()
    now = timezone.now()
    row = IdempotencyKey(digest=digest, body_digest=body_digest, lease_until=now + LEASE, expires_at=now + KEEP)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        return _claim_again(row, now)
    return row


def _claim_again(wanted: IdempotencyKey, now: datetime.datetime) -> IdempotencyKey:
    known = IdempotencyKey.objects.filter(digest=wanted.digest).first()
    if known is None:
        # Given up between the two statements.
        raise RequestInFlight("This request is under way.", retry_after=1.0)
    has_expired = known.expires_at <= now
    if known.body_digest != wanted.body_digest and not has_expired:
        raise KeyReused(f"This {HEADER} came before, with another request.")
    if known.status is not None and not has_expired:
        return known
    # Nobody answers it any more: one of those who ask again takes it over.
    taken = IdempotencyKey.objects.filter(pk=known.pk, lease_until=known.lease_until)
    fresh = {name: getattr(wanted, name) for name in ("body_digest", "lease_until", "expires_at")}
    if known.lease_until > now or not taken.update(**fresh, status=None, headers={}, body=None):
        raise RequestInFlight("This request is under way.", retry_after=1.0)
    return IdempotencyKey.objects.get(pk=known.pk)


def _store(row_id: int, key: str, response: HttpResponse) -> None:
    headers = {name: response[name] for name in _KEPT_HEADERS if name in response}
    body = _ciphers(key)[0].encrypt(response.content)
    IdempotencyKey.objects.filter(pk=row_id).update(status=response.status_code, headers=headers, body=body)


def _extend(row_id: int) -> None:
    IdempotencyKey.objects.filter(pk=row_id, status=None).update(lease_until=timezone.now() + LEASE)


def _forget(row_id: int) -> None:
    IdempotencyKey.objects.filter(pk=row_id, status=None).delete()


def _stored_answer(row: IdempotencyKey, key: str) -> HttpResponse:
    for cipher in _ciphers(key):
        with suppress(InvalidToken):
            response = HttpResponse(cipher.decrypt(bytes(row.body or b"")), status=row.status)
            for name, value in row.headers.items():
                response[name] = value
            response[REPLAYED] = "true"
            return response
    raise KeyReused("The stored answer cannot be read any more, since the server's secret key has changed.")


def _ciphers(key: str) -> list[Fernet]:
    """One for the secret key in force, and one for each earlier one."""
    secrets = [django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS]
    digests = [
        salted_hmac("dspyserve.idempotency", key, secret=secret, algorithm="sha256").digest() for secret in secrets
    ]
    return [Fernet(base64.urlsafe_b64encode(digest)) for digest in digests]


_purged_at = float("-inf")


def _purge() -> None:
    global _purged_at
    if time.monotonic() - _purged_at < _PURGE_EVERY:
        return
    _purged_at = time.monotonic()
    expired = IdempotencyKey.objects.filter(expires_at__lte=timezone.now()).values_list("pk", flat=True)[:_PURGE]
    IdempotencyKey.objects.filter(pk__in=list(expired)).delete()
