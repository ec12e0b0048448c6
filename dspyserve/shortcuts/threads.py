"""Native-async calls of language models, without the threads that DSPy hops to for what takes microseconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import wraps
from typing import Any

from dspy.clients import execution, model_metadata
from dspy.clients.engines import lm15_engine
from dspy.clients.engines.lm15_engine import AsyncLM15Engine

from dspyserve.shortcuts.module_view import ModuleView


def find_targets_here() -> None:
    """Take a provider's client that exists already without a thread; only making one may read credentials."""
    complete, stream, checked = AsyncLM15Engine.complete, AsyncLM15Engine.stream, lm15_engine.achecked_stream
    _ = AsyncLM15Engine._target

    @wraps(complete)
    async def complete_here(engine: Any, request: Any) -> Any:
        if not engine._providers:
            return await complete(engine, request)
        provider, routed = engine._target(request)
        return await provider.complete(routed)

    @wraps(stream)
    async def stream_here(engine: Any, request: Any) -> AsyncIterator[Any]:
        if not engine._providers:
            events = stream(engine, request)
        else:
            provider, routed = engine._target(request, streaming=True)
            events = checked(provider.stream(routed), provider=provider.provider)
        async with lm15_engine.aclosing_stream(events):
            async for event in events:
                yield event

    AsyncLM15Engine.complete = complete_here  # type: ignore[method-assign]
    AsyncLM15Engine.stream = stream_here  # type: ignore[method-assign,assignment]


def price_here() -> None:
    """Look prices up without a thread, once the list of them is loaded."""
    price = execution._price_result

    async def to_thread(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if func is price and model_metadata._data is not None:
            return func(*args, **kwargs)
        return await asyncio.to_thread(func, *args, **kwargs)

    execution.asyncio = ModuleView(execution.asyncio, to_thread=to_thread)


ALL = (find_targets_here, price_here)
