"""What one request may cost, in counts that no clock has a say in. Each of them is one that the benchmark knew."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from dspyserve.execution import isolation
from dspyserve.lean import LeanHandler
from dspyserve.models import Trace
from dspyserve.tracing import store
from dspyserve.tracing.rows import TraceRows
from dspyserve.tracing.writer import writer
from tests.function_calls import function_calls
from tests.test_lean import Exchange

BODY = {"inputs": {"question": "What is counted here?"}}
CALLS = 5_000
"""Function calls that the request's own thread makes, DSPy's and the language model's client included; with DSPy's own
ways of finding engines, prices and proxies it would be about twice as many."""


@pytest.fixture
def handler(language_model: Any) -> LeanHandler:
    return LeanHandler()


async def answered(handler: LeanHandler, program: str) -> Exchange:
    exchange = await Exchange("POST", f"/api/programs/{program}", BODY).run(handler)
    assert exchange.status == 200, exchange.content
    return exchange


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count what is done meanwhile, in all threads but where said otherwise."""
    counts: Counter[str] = Counter()
    here = threading.get_ident()
    is_preparing = False
    prepare = store.prepare

    def preparing(rows: TraceRows) -> None:
        nonlocal is_preparing
        is_preparing = True
        try:
            prepare(rows)
        finally:
            is_preparing = False

    def count(owner: Any, name: str, label: str) -> None:
        function = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread().name.startswith("openai-server"):
                return function(*args, **kwargs)
            is_of_trace = label.endswith("json") and (is_preparing or threading.get_ident() != here)
            counts["columns" if is_of_trace else label] += 1
            if label == "deep copies":
                with monkeypatch.context() as nested:
                    nested.setattr(copy, "deepcopy", function)
                    return function(*args, **kwargs)
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    def statement(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        where = "here" if threading.get_ident() == here else "in other threads"
        counts[f"statements {where}"] += 1
        return execute(sql, params, many, context)

    connected = BaseDatabaseWrapper.cursor

    def cursor(self: Any) -> Any:
        if statement not in self.execute_wrappers:
            self.execute_wrappers.append(statement)
        return connected(self)

    monkeypatch.setattr(BaseDatabaseWrapper, "cursor", cursor)
    monkeypatch.setattr(store, "prepare", preparing)
    count(threading.Thread, "start", "threads started")
    count(ThreadPoolExecutor, "submit", "hops to threads")
    count(orjson, "dumps", "orjson")
    count(json, "dumps", "json")
    count(copy, "deepcopy", "deep copies")
    count(isolation, "deep_copy", "copies of the program")
    count(os, "urandom", "random bytes")
    try:
        yield counts
    finally:
        for wrapped in connections.all(initialized_only=True):
            while statement in wrapped.execute_wrappers:
                wrapped.execute_wrappers.remove(statement)


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """The kinds of what became unreachable meanwhile without being freed, known afterwards."""
    kinds: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    flags = gc.get_debug()
    try:
        yield kinds
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds.update(type(each).__name__ for each in gc.garbage)
    finally:
        gc.set_debug(flags)
        gc.garbage.clear()
        gc.enable()


async def test_a_native_async_run(handler: LeanHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):  # what is kept between requests is there after the first ones
        await answered(handler, "echo")
    before = await sync_to_async(Trace.objects.count)()
    with counted(monkeypatch) as counts:
        await answered(handler, "echo")
    assert await sync_to_async(Trace.objects.count)() == before + 1
    assert counts["statements here"] == 0
    assert counts["threads started"] == 0
    assert counts["hops to threads"] == 0
    assert counts["copies of the program"] == 1
    assert counts["deep copies"] == 0, "modules of DSPy's need none"
    assert counts["random bytes"] == 1, "of DSPy's history"
    assert counts["orjson"] == 2, "the inputs, whose values are read as JSON, and the answer"
    assert 0 < counts["json"] <= 4, "the request of the language model's client"
    assert 0 < counts["columns"] <= 24, "of the trace, where it is made ready and in the writer"


async def test_a_run_in_a_thread(handler: LeanHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        await answered(handler, "threaded")
    with counted(monkeypatch) as counts:
        await answered(handler, "threaded")
    assert counts["statements here"] == 0
    assert counts["threads started"] == 0
    assert counts["copies of the program"] == 1
    assert counts["deep copies"] == 0, "likewise"


async def test_a_run_calls_no_more_functions_than_it_did(handler: LeanHandler) -> None:
    for _ in range(3):
        await answered(handler, "echo")
    with function_calls() as calls:
        await answered(handler, "echo")
    assert 1_000 < calls.number < CALLS


@pytest.mark.parametrize("path", ["echo", "threaded", "echo/stream", "threaded/stream"])
async def test_a_run_leaves_nothing_to_the_garbage_collector(handler: LeanHandler, path: str) -> None:
    """What refers to itself, over however many other objects, stays in memory until the collector looks for it."""
    for _ in range(3):
        await answered(handler, path)
    with garbage() as found:
        for _ in range(3):
            await answered(handler, path)
            await asyncio.sleep(0.1)  # until tasks have ended that the answer did not wait for
    assert not found


def test_one_transaction_holds_many_traces(language_model: Any, handler: LeanHandler) -> None:
    """As many requests as come at once do not need as many commits."""
    commits: list[int] = []
    commit = writer._commit_batch

    async def ask() -> None:
        await answered(handler, "echo")
        writer._commit_batch = lambda *given: commits.append(1) or commit(*given)  # type: ignore[method-assign]
        await asyncio.gather(*(answered(handler, "echo") for _ in range(40)))

    try:
        asyncio.run(ask())
    finally:
        del writer._commit_batch
    assert 0 < len(commits) < 40
