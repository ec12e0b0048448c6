"""Who opened a socket."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model

from dspyserve.access.identity import ANONYMOUS, Identity
from dspyserve.access.keys import keys
from dspyserve.errors import Unauthenticated


async def identify(scope: Any) -> Identity:
    """Who speaks: the holder of the bearer token in the handshake's headers, else the user of the session.

    The key, or the user, is looked up anew each time, since a socket may stay open for days.

    Raises:
        Unauthenticated: the token is not good, or the user is not active any more.
    """
    scheme, _, token = _authorization(scope).partition(" ")
    if scheme.lower() == "bearer":
        return await keys.aidentify(token.strip())
    user = scope.get("user")
    if user is None or not user.is_authenticated:
        return ANONYMOUS
    current = await get_user_model()._default_manager.filter(pk=user.pk).afirst()
    if current is None or not current.is_active:
        raise Unauthenticated("This user is not active.")
    return Identity(user=current)


def _authorization(scope: Any) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), "")
