"""What is compared: a process, and the way to let it run a program many times."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.load.processes import Process
from tests.load.serving.load import RunFailed, Target, Times, for_seconds

_LINE = 2**26  # bytes of the longest line, which tells the times of a round


class Contender(Protocol):
    """One of those that are compared."""

    name: str
    process: Process

    async def run(self, program: str, concurrency: int, seconds: float, latency_ms: int) -> Times:
        """Run the program again and again, so many times at once."""


@dataclass(slots=True)
class Served:
    """A program behind HTTP; `target` tells where a program of that name is."""

    name: str
    process: Process
    target: Callable[[str], Target]

    async def run(self, program: str, concurrency: int, seconds: float, latency_ms: int) -> Times:
        """Over connections that are kept."""
        return await for_seconds(self.target(program), concurrency, seconds, latency_ms)


@dataclass(slots=True)
class Bare:
    """DSPy alone, which makes its own load."""

    name: str
    process: Process

    async def run(self, program: str, concurrency: int, seconds: float, latency_ms: int) -> Times:
        """On command."""
        command = {"program": program, "concurrency": concurrency, "seconds": seconds, "latency_ms": latency_ms}
        reader, writer = await asyncio.open_connection("127.0.0.1", self.process.port, limit=_LINE)
        writer.write(json.dumps(command).encode() + b"\n")
        reply = json.loads(await reader.readline())
        writer.close()
        if "error" in reply:
            raise RunFailed(reply["error"])
        return [(start, end) for start, end in reply["times"]]


def ours(process: Process, level: str, name: str = "") -> Served:
    """Our server, with traces of a level."""

    def target(program: str) -> Target:
        return Target(process.port, f"/api/programs/{program}-{level}", lambda asked: {"inputs": {"question": asked}})

    return Served(name or f"dspyserve, traces {level}", process, target)


def fastapi(process: Process) -> Served:
    """FastAPI and `dspy.asyncify`."""
    return Served("FastAPI + asyncify", process, lambda program: Target(process.port, f"/{program}", _question))


def dspy_cli(process: Process) -> Served:
    """dspy-cli, whose programs have the names of their classes."""
    classes = {"predict": "Ask", "synchronous": "AskInThread", "three_steps": "ThreeSteps", "react": "Agent"}
    return Served("dspy-cli", process, lambda program: Target(process.port, f"/{classes[program]}", _question))


def _question(asked: str) -> dict[str, str]:
    return {"question": asked}
