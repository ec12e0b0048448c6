"""Sessions for browsers."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.test import Client


def session_of(user: User) -> str:
    """The cookie of a session of `user`, for `page_of(..., session=...)`."""
    client = Client()
    client.force_login(user)
    return str(client.cookies["sessionid"].value)


def superuser(name: str = "ann") -> User:
    """Who may do everything."""
    found = User.objects.filter(username=name).first()
    return found or User.objects.create_superuser(name, password="x")
