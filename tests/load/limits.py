"""How many files a process may have open: every stream takes two in the server."""

from __future__ import annotations

import resource


def raise_file_limit() -> None:
    """As many as this user may have. Child processes inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
