"""DSPy alone: as many threads as programs run at a time, nothing before them and nothing after them.

Started as `python -m tests.load.serving.bare PORT`. A connection sends a line of JSON, `program`, `concurrency`,
`seconds` and `latency_ms`, and is sent one back: when every run started and ended, by the monotonic clock.
"""

from __future__ import annotations

import argparse
import json
import os
import socketserver
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import dspy

from tests.load.serving.modules import Agent, Ask, AskInThread, ThreeSteps
from tests.load.serving.questions import answer, question

_LM = dspy.LM("openai/gpt-4o-mini", api_base=os.environ["SERVING_PROVIDER"], api_key="benchmark", cache=False)
_PROGRAMS: dict[str, Any] = {
    "predict": Ask(),
    "synchronous": AskInThread(),
    "three_steps": ThreeSteps(),
    "react": Agent(),
}
_NUMBERS = count(1)


def run(program: str, concurrency: int, seconds: float, latency_ms: int) -> list[tuple[float, float]]:
    """Run a program again and again, `concurrency` times at once, for so many seconds."""
    end = time.monotonic() + seconds
    times: list[tuple[float, float]] = []

    def work() -> None:
        while (started := time.monotonic()) < end:
            number = next(_NUMBERS)
            with dspy.context(lm=_LM.copy()):
                given = _PROGRAMS[program](question=question(number, latency_ms)).answer
            times.append((started, time.monotonic()))
            if given != answer(number):
                raise ValueError(f"not the answer to question {number}: {given}")

    with ThreadPoolExecutor(concurrency) as pool:
        for done in [pool.submit(work) for _ in range(concurrency)]:
            done.result()
    return times


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")


def _answer(command: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"times": run(**command)}
    except Exception as error:
        return {"error": repr(error)}


def main() -> None:
    """Serve until the process is told to stop."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("port", type=int)
    with socketserver.TCPServer(("127.0.0.1", parser.parse_args().port), _Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
