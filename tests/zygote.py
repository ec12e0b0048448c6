"""A process that has imported what Django processes need, and forks one whenever it is asked: `-m tests.zygote FD`.

Each begins where `python -m MODULE` would, only that the libraries are there: nothing of Django's settings, no reactor,
no thread, no connection. It ends as such a process does, too, with its handlers of `atexit` and its own exit code.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
from typing import Any

NUMBER = struct.Struct("=i")
"""What the status pipe carries: first the new process's id, at its end the exit code as `subprocess` gives it."""

LONGEST = 2**18
"""Bytes of an order."""

LIBRARIES = (
    *("dspy", "dspy.experimental", "dspy.clients.typesafe", "pydantic.dataclasses", "pydantic.networks", "orjson"),
    *("django.contrib.admin", "django.contrib.auth.password_validation", "django.core.asgi", "django.test"),
    *("django.db.backends.sqlite3.base", "django.core.management.commands.runserver", "environ", "jinja2"),
    *("cryptography.fernet", "cryptography.hazmat.primitives.padding", "anyio.from_thread", "httpx"),
    *("channels.routing", "channels.security.websocket", "channels.layers", "autobahn.twisted.websocket"),
    *("twisted.internet.asyncioreactor", "twisted.web.http", "twisted.internet.threads"),
    *("uvicorn.main", "uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.auto"),
    *("uvicorn.protocols.websockets.auto", "psycopg", "psycopg_pool", "redis.asyncio", "channels_redis.core"),
)


def main() -> None:
    """Serve orders until nobody can give any more; in a new process, do what was ordered."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in LIBRARIES:
        importlib.import_module(name)
    assert threading.active_count() == 1, "threads do not survive a fork"
    assert "twisted.internet.reactor" not in sys.modules, "every process needs a reactor of its own"
    gc.collect()
    gc.freeze()
    # The kernel takes the keepers away when they end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A shell in the background has its children ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while True:
        text, descriptors, _, _ = socket.recv_fds(control, LONGEST, 3)
        if not text:
            return
        if _is_new_process(*descriptors):
            control.close()
            _become(json.loads(text))
            return


def _is_new_process(output: int, errors: int, status: int) -> bool:
    """Fork a keeper, and it the process: whether this is the latter. It writes to the descriptors."""
    if os.fork():
        for descriptor in (output, errors, status):
            os.close(descriptor)
        return False
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        _keep(pid, status)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    for descriptor in (output, errors, status):
        os.close(descriptor)
    return True


def _keep(pid: int, status: int) -> None:
    """Tell id and exit code, and let the process not outlive those who would read it."""
    try:
        os.write(status, NUMBER.pack(pid))
        poll = select.poll()
        poll.register(os.pidfd_open(pid), select.POLLIN)
        poll.register(status, 0)
        if any(descriptor == status for descriptor, _ in poll.poll()):
            os.kill(pid, signal.SIGKILL)
        os.write(status, NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    finally:
        os._exit(0)


def _become(order: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv[1:] = order["arguments"]
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
