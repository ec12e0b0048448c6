"""Requests of texts alone are those that DSPy makes, and all others are made by DSPy."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from dspy.clients import execution
from dspy.lm15 import OpenAIChatCompat
from hypothesis import given
from hypothesis import strategies as st

from dspyserve.shortcuts import install


@pytest.fixture(autouse=True)
def _installed() -> None:
    install()


TEXTS = st.text(max_size=8) | st.sampled_from(["a", "b" * 100, "\ud800", ""])
CONTENTS = TEXTS | st.none() | st.just([{"type": "text", "text": "part"}])
ROLES = st.sampled_from(["system", "user", "assistant", "developer", "tool", "nobody"])
ROWS = st.fixed_dictionaries({"role": ROLES, "content": CONTENTS}, optional={"name": st.none(), "refusal": TEXTS})
SETTINGS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 0.0, 0.5, 9, "hot"]),
        "max_tokens": st.sampled_from([1, True, 100]),
        "stop": st.sampled_from(["x", ["x"]]),
        "tools": st.just([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]),
        "response_format": st.just({"type": "json_object"}),
        "logit_bias": st.just({"1": 2}),
        "prediction": st.just("soon"),
        "strange": st.just(1),
    },
)


def made(function: Any, body: Any, compat: Any) -> Any:
    """A request, or the error; with the types of its settings, for 0 equals 0.0 and False."""
    try:
        request = function(body, compat=compat)
    except Exception as error:
        return type(error), str(error)
    return request, repr(request)


@given(
    st.lists(ROWS, max_size=4) | st.just("rows"),
    SETTINGS,
    st.sampled_from([None, "openai", "groq", OpenAIChatCompat()]),
    st.sampled_from(["openai/gpt-4o-mini", "m", "", None]),
)
def test_are_the_same(rows: Any, settings: dict[str, Any], compat: Any, model: Any) -> None:
    body = {"model": model, "messages": rows, **settings}
    ours = execution.request_from_openai_chat
    expected = made(inspect.unwrap(ours), body, compat)
    for _ in range(2):
        assert made(ours, body, compat) == expected


def test_settings_are_read_once() -> None:
    ours = execution.request_from_openai_chat
    rows = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    found = [ours({"model": "once", "messages": [*rows, *more], "seed": 7}) for more in ([], rows[1:])]
    assert found[0].config is found[1].config
    assert ours({"model": "once", "messages": rows, "seed": 8}).config.seed == 8


@pytest.mark.parametrize(("first", "second"), [(1, True), (True, 1), (0.0, 0), (1.0, True)])
def test_settings_that_are_equal_are_not_always_the_same(first: Any, second: Any) -> None:
    ours = execution.request_from_openai_chat
    rows = [{"role": "user", "content": "q"}]
    for name in ("max_tokens", "temperature", "seed", "store"):
        for value in (first, second):
            body = {"model": f"{name} {first!r}", "messages": rows, name: value}
            assert made(ours, body, None) == made(inspect.unwrap(ours), body, None)


@pytest.mark.parametrize("body", [None, [], {"model": "m"}, {"messages": []}])
def test_others_are_refused_as_ever(body: Any) -> None:
    ours = execution.request_from_openai_chat
    assert made(ours, body, None) == made(inspect.unwrap(ours), body, None)
