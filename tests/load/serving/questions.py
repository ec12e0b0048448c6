"""What programs are asked, and what they must answer. Nothing in either needs an escape in JSON."""

from __future__ import annotations

from typing import Final

TEXT: Final = (
    " The kettle boils at a lower temperature where the air is thin, which is why tea made on a mountain tastes flat:"
    " less of what makes it strong is dissolved. A lid and a minute more help."
)
"""What all texts of the provider end with."""


def question(number: int, latency_ms: int) -> str:
    """The provider reads its latency from this."""
    return (
        f"Question {number}, to be answered after {latency_ms} ms: why does tea that is made on a high mountain taste"
        " flat, and what can somebody who is up there do about it?"
    )


def answer(number: int) -> str:
    """The whole of the answer, by which it is known that it is not another's."""
    return f"Answer {number}:{TEXT}"
