"""A server in a process of its own: started, measured from outside, stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.server import free_port

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 120
_STOP_SECONDS = 30
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """A command that listens on `port`; `wait` returns when it does, and so does a `with` statement."""

    def __init__(
        self, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str], directory: Path = ROOT
    ) -> None:
        self.port = port
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=directory, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
            )
        self.pid = self._process.pid

    def cpu(self) -> float:
        """Seconds of CPU, in user and system mode, that it took so far, with its children."""
        return sum(_of_tree(_cpu, self.pid))

    def rss(self) -> int:
        """Resident memory in bytes, with that of its children; what they share counts for each."""
        return int(sum(_of_tree(_rss, self.pid)))

    def threads(self) -> int:
        """How many threads it has."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def log(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-3000:]

    def wait(self) -> None:
        """Until it listens.

        Raises:
            RuntimeError: it does not, in time; it is stopped then.
        """
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise RuntimeError(f"did not start:\n{self.log()}")

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def uvicorn(
    python: str | Path,
    application: str,
    log: Path,
    environment: Mapping[str, str],
    *options: str,
    directory: Path = ROOT,
) -> Process:
    """An application behind uvicorn, on a free port, with nothing that slows it down."""
    port = free_port()
    given = [f"--port={port}", "--host=127.0.0.1", "--backlog=4096", "--loop=uvloop", "--http=httptools", *options]
    command = [str(python), "-m", "uvicorn", "--log-level=warning", "--no-access-log", *given, application]
    return Process(command, port, log, environment, directory)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def _of_tree(reading: Callable[[int], float], pid: int) -> Iterator[float]:
    yield reading(pid)
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            for child in (task / "children").read_text().split():
                yield from _of_tree(reading, int(child))
