"""What looks like a secret is taken out of texts, and no shorter way overlooks any."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspyserve import secret_patterns
from dspyserve.secret_patterns import SECRET_TEXT, without_secrets

ANYTHING = st.text(max_size=20)


@given(ANYTHING, st.from_regex(SECRET_TEXT), ANYTHING)
def test_every_secret_is_found(before: str, secret: str, after: str) -> None:
    text = f"{before} {secret} {after}"
    assert without_secrets(text, "*") == SECRET_TEXT.sub("*", text)
    assert without_secrets(secret, "*") != secret


@given(st.text())
def test_other_texts_stay(text: str) -> None:
    assert without_secrets(text, "*") == SECRET_TEXT.sub("*", text)


@pytest.mark.parametrize(
    "text", ["ap\u0131_key=hunter2", "AP\u0130-KEY: hunter2", "\u017fecret=hunter2", "api\u212aey=hunter2"]
)
def test_letters_that_a_pattern_takes_for_others_hide_none(text: str) -> None:
    assert without_secrets(text, "*") == "*"


@pytest.mark.parametrize("text", ["What is the capital of France?", "a key, a monkey and a keyboard", "bear with me"])
def test_the_pattern_is_tried_only_where_it_may_find_something(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(secret_patterns, "SECRET_TEXT", tried)
    assert without_secrets(text, "*") is text
