"""What is told of a language model's call beside its answer: tokens, cost, and who answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lm_facts(
    model: str, usage: list[Mapping[str, Any]], history: list[Mapping[str, Any]], exception: BaseException | None
) -> dict[str, Any]:
    """What the end of a call carries, of the usage that was billed for it and of its history entries."""
    entry = history[-1] if history else {}
    response = entry.get("response")
    if isinstance(response, list | tuple):
        response = response[0] if response else None
    cached = not usage and exception is None
    return {
        "model": model,
        "usage": _sum(usage),
        # A cache hit keeps the cost of the call that filled the cache; this one cost nothing.
        "cost": 0.0 if cached else entry.get("cost"),
        "cached": cached,
        "response_model": entry.get("response_model"),
        "response_id": getattr(response, "id", None),
        "finish_reason": _finish_reason(response),
    }


def _finish_reason(response: Any) -> str | None:
    reason = getattr(response, "finish_reason", None)
    if reason is None and getattr(response, "choices", None):
        reason = getattr(response.choices[0], "finish_reason", None)
    return str(reason) if reason is not None else None


def _sum(usages: list[Mapping[str, Any]]) -> dict[str, int]:
    """Input, output and cached tokens over all that was billed for a call; a count that no provider gave is absent."""
    counts: dict[str, int] = {}
    for usage in usages:
        details = usage.get("prompt_tokens_details") or {}
        details = details if isinstance(details, Mapping) else vars(details)
        for name, value in (
            ("input_tokens", usage.get("prompt_tokens", usage.get("input_tokens"))),
            ("output_tokens", usage.get("completion_tokens", usage.get("output_tokens"))),
            ("cached_tokens", details.get("cached_tokens")),
        ):
            if isinstance(value, int):
                counts[name] = counts.get(name, 0) + value
    return counts
