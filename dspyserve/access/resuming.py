"""Who may read a stream again: the caller that started it.

Of anonymous callers nothing is known that would tell one from another, and a trace id is no secret: reviewers and other
services see it. Theirs is the token that the first event carries.
"""

from __future__ import annotations

from django.utils.crypto import constant_time_compare, salted_hmac

from dspyserve.access.identity import ANONYMOUS, Identity

_SALT = "dspyserve.resume"


def announcement(owner: str, trace_id: str) -> dict[str, str]:
    """What the first event of a stream tells its `owner`, so that it may be read again."""
    return {"resume_token": _token(trace_id)} if owner == ANONYMOUS.name else {}


def owner_name(identity: Identity, trace_id: str, token: str) -> str:
    """The name under which the caller may own the stream `trace_id`; empty where it can own none."""
    if identity.is_anonymous and not constant_time_compare(token, _token(trace_id)):
        return ""
    return identity.name


def _token(trace_id: str) -> str:
    return salted_hmac(_SALT, trace_id, algorithm="sha256").hexdigest()[:40]
