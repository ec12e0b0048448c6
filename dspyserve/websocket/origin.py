"""Which pages may open a socket."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from django.conf import settings as django_settings
from django.http.request import validate_host
from django.utils.http import is_same_domain

_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443"}


def is_allowed_origin(headers: Iterable[tuple[bytes, bytes]], scheme: str) -> bool:
    """Whether a socket with these headers comes from this site, from a trusted one, or from no browser at all.

    Browsers let any page open a socket to any host and always tell the page's origin, cookies included. A program that
    tells none has no cookies of a person's to abuse.
    """
    found = {name: value.decode("latin-1") for name, value in headers if name in (b"origin", b"host")}
    origin = found.get(b"origin")
    host = found.get(b"host", "")
    if not validate_host(_hostname(host), _allowed_hosts()):
        return False
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return _address(parts.netloc, parts.scheme) == _address(host, scheme) or _is_trusted(parts)


def _allowed_hosts() -> list[str]:
    # As Django's own request does: in debug mode, an empty list means this machine.
    if django_settings.DEBUG and not django_settings.ALLOWED_HOSTS:
        return [".localhost", "127.0.0.1", "[::1]"]
    return list(django_settings.ALLOWED_HOSTS)


def _hostname(host: str) -> str:
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()


def _address(netloc: str, scheme: str) -> tuple[str, str]:
    name = _hostname(netloc)
    port = netloc[len(name) + 1 :] or _PORTS.get(scheme, "")
    return name, port


def _is_trusted(parts: SplitResult) -> bool:
    for trusted in django_settings.CSRF_TRUSTED_ORIGINS:
        wanted = urlsplit(trusted)
        pattern = wanted.netloc.removeprefix("*")
        if parts.scheme == wanted.scheme and is_same_domain(parts.netloc.lower(), pattern.lower()):
            return True
    return False
