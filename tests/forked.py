"""Python processes that start within tenths of a second, because they are forked from one that is warm."""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.zygote import NUMBER

ROOT = Path(__file__).resolve().parent.parent


class Forked:
    """`python -m MODULE ARGUMENTS`, and as much of `subprocess.Popen` as tests use."""

    def __init__(
        self, module: str, *arguments: str, environment: dict[str, str], output: int, errors: int | None = None
    ) -> None:
        """Returns when the process is there; it writes to the descriptors `output` and `errors`, or to one for both."""
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._status, theirs = os.pipe()
        order = {"module": module, "arguments": arguments, "environment": environment}
        try:
            socket.send_fds(
                _zygote(), [json.dumps(order).encode()], [output, output if errors is None else errors, theirs]
            )
        finally:
            os.close(theirs)
        self.pid = self._read(60)
        assert self.pid is not None, "the zygote does not answer"

    def poll(self) -> int | None:
        """The exit code, if it ended."""
        with self._lock:
            if self.returncode is None and (code := self._read(0)) is not None:
                self.returncode = code
                os.close(self._status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises `subprocess.TimeoutExpired`."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it ended."""
        if self.poll() is None and self.pid is not None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _read(self, timeout: float) -> int | None:
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        if not poll.poll(timeout * 1_000):
            return None
        found = os.read(self._status, NUMBER.size)
        assert found, "the zygote is gone"
        return int(NUMBER.unpack(found)[0])


@functools.cache
def _zygote() -> socket.socket:
    """Where this process gives its orders: the first call starts the zygote, which ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.zygote", str(theirs.fileno())],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait(30)

    atexit.register(end)
    return ours
