"""Numbers as people read them."""

from __future__ import annotations

from typing import Any

from django.utils.html import format_html


def duration(milliseconds: float | None) -> str:
    """Milliseconds below a second, seconds below two minutes, then minutes."""
    if milliseconds is None:
        return "–"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.2f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def cost(dollars: float | None) -> str:
    """US dollars; a dash where nobody knows."""
    if dollars is None:
        return "–"
    if 0 < dollars < 0.000001:
        return "< $0.000001"
    return f"${dollars:.6f}".rstrip("0").rstrip(".")


def tokens(incoming: int | None, outgoing: int | None) -> str:
    """Input and output tokens."""
    if incoming is None and outgoing is None:
        return "–"
    return f"{incoming if incoming is not None else '–'} → {outgoing if outgoing is not None else '–'}"


def badge(kind: str, symbol: str, text: Any) -> str:
    """A word in the colour of `kind`, with a symbol, so that colour says nothing alone."""
    return format_html(
        '<span class="dspyserve-badge dspyserve-{}"><span aria-hidden="true">{}</span> {}</span>', kind, symbol, text
    )
