"""Who opened a socket."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import close_old_connections

from dspyserve.access.identity import ANONYMOUS, Identity
from dspyserve.access.keys import keys
from dspyserve.access.permissions import Right, check_may_replay, check_may_run, may
from dspyserve.errors import Unauthenticated
from dspyserve.programs.catalogue import catalogue


async def authorise(scope: Any, name: str) -> tuple[Identity, bool]:
    """Who speaks, where they may run the program `name`, and whether they may see payloads.

    Raises:
        Unauthenticated: the token is not good, the user is not active any more, or the program asks for credentials.
        Forbidden: they may not run it.
        ProgramNotFound: there is no such program.
    """
    try:
        identity = await _identify(scope)
        await check_may_run(identity, await catalogue.arow(name))
        return identity, await may(identity, Right.VIEW_PAYLOADS)
    finally:
        if _has_user(scope):
            # No request ends here that would give the connection back to its pool.
            await sync_to_async(close_old_connections)()


async def authorise_replay(identity: Identity, trace_id: str) -> None:
    """Return where the caller may run variants of programs and, where there is a `trace_id`, that trace again.

    Raises:
        Forbidden: they may not.
    """
    try:
        await check_may_replay(identity, trace_id)
    finally:
        await sync_to_async(close_old_connections)()


async def _identify(scope: Any) -> Identity:
    """Who speaks: the holder of the bearer token in the handshake's headers, else the user of the session.

    The key, or the user, is looked up anew each time, since a socket may stay open for days.

    Raises:
        Unauthenticated: the token is not good, or the user is not active any more.
    """
    if (known := await keys.aidentify(_authorization(scope))) is not None:
        return known
    if not _has_user(scope):
        return ANONYMOUS
    current = await get_user_model()._default_manager.filter(pk=scope["user"].pk).afirst()
    if current is None or not current.is_active:
        raise Unauthenticated("This user is not active.")
    return Identity(user=current)


def _has_user(scope: Any) -> bool:
    user = scope.get("user")
    return user is not None and bool(user.is_authenticated)


def _authorization(scope: Any) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), "")
