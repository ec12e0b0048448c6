"""How one run may differ from its program, for those who run something again to see what changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Another language model, by name, or another version, by number; None stands for the program's own.

    Version 0 is the program as it is written, without the state of any version.
    """

    language_model: str | None = None
    version: int | None = None


OWN: Final = Variant()
"""The program as it is served to everybody."""
