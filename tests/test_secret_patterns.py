"""What looks like a secret is taken out of texts, and no shorter way overlooks any."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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
