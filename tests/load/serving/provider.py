"""A lean provider: OpenAI's chat completions, whole, for ChatAdapter, after the latency that a prompt asks for.

Started as `python -m tests.load.serving.provider PORT`. It reads the first output field that a prompt wants, and how
far the trajectory of a `dspy.ReAct` got; every answer names the number of its question, so that it can be told apart.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Final

from tests.load.raw_http import ServerConnection, serve
from tests.load.serving.questions import TEXT, answer

_ASKED: Final = re.compile(rb"Question (\d+), to be answered after (\d+) ms")
_WANTED: Final = b"starting with the field `[[ ## "
_OBSERVATION: Final = b"[[ ## observation_"

_ANSWER: Final = answer(0).replace("0", "@", 1)
_COMPLETED: Final = "\n\n[[ ## completed ## ]]"


def _fields(**values: str) -> str:
    """An answer of ChatAdapter's."""
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in values.items()) + _COMPLETED


def _step(thought: str, tool: str, arguments: str) -> str:
    return _fields(next_thought=thought + TEXT, next_tool_name=tool, next_tool_args=arguments)


_ANSWERS: Final = {
    b"answer": _fields(answer=_ANSWER),
    b"plan": _fields(plan="Plan @:" + TEXT),
    b"draft": _fields(draft="Draft @:" + TEXT),
    b"reasoning": _fields(reasoning="Reasoning @:" + TEXT, answer=_ANSWER),
}
_STEPS: Final = (
    _step("Look it up.", "search", '{"query": "question @"}'),
    _step("Work it out.", "add", '{"left": @, "right": 1}'),
    _step("That is all.", "finish", "{}"),
)
_REFUSAL: Final = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_%d\r\ncontent-length: %d\r\n\r\n"
)


def _template(text: str) -> bytes:
    """The body of a completion, in which `@` stands for the question's number."""
    message: dict[str, object] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    usage = {"prompt_tokens": 180, "completion_tokens": 60, "total_tokens": 240}
    details = {"cached_tokens": 0, "audio_tokens": 0}
    completion = {
        "id": "chatcmpl-benchmark@",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {**usage, "prompt_tokens_details": details},
        "service_tier": "default",
        "system_fingerprint": "fp_0",
    }
    return json.dumps(completion).encode()


_BODIES: Final = {name: _template(text) for name, text in _ANSWERS.items()}
_STEP_BODIES: Final = tuple(_template(text) for text in _STEPS)


def completion_for(body: bytes) -> tuple[float, bytes] | None:
    """The latency in seconds and the whole answer to a request; None for a prompt that is not of the benchmark."""
    asked = _ASKED.search(body)
    start = body.rfind(_WANTED)
    if asked is None or start < 0:
        return None
    start += len(_WANTED)
    wanted = body[start : body.find(b" ", start)]
    if wanted == b"next_thought":
        template = _STEP_BODIES[min(body.count(_OBSERVATION), len(_STEP_BODIES) - 1)]
    elif wanted in _BODIES:
        template = _BODIES[wanted]
    else:
        return None
    content = template.replace(b"@", asked[1])
    return int(asked[2]) / 1000, _HEAD % (int(asked[1]), len(content)) + content


class Connection(ServerConnection):
    """One client, which sends one request after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def answer(self, body: bytes) -> None:
        """Answer after the latency."""
        found = completion_for(body)
        if found is None:
            self.transport.write(_REFUSAL)
        elif found[0]:
            self._loop.call_later(found[0], self.transport.write, found[1])
        else:
            self.transport.write(found[1])


def connections() -> Callable[[], Connection]:
    """What answers the clients."""
    loop = asyncio.get_running_loop()
    return lambda: Connection(loop)


if __name__ == "__main__":
    serve(connections)
