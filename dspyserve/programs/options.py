"""What a caller may say of a run beside its inputs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from dspyserve.conf import settings
from dspyserve.encoding import encode
from dspyserve.errors import Fault, InvalidInput
from dspyserve.programs.variant import Variant

MAX_LABEL = 200
"""The longest session id and tag, in characters."""

_TRACE_ID: Final = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """`timeout` is in seconds; `on_disconnect` says what becomes of a streamed run when nobody reads it any more.

    `language_model`, `version` and `replay_of`, a trace id, make the run a variant of the program or a replay; the rest
    is remembered with the trace.
    """

    timeout: float | None = None
    on_disconnect: Literal["cancel", "continue"] = "cancel"
    session_id: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    language_model: str | None = None
    version: int | None = None
    replay_of: str = ""

    @property
    def variant(self) -> Variant:
        """What of the program is another than its own."""
        return Variant(language_model=self.language_model, version=self.version)


NAMES = ("session_id", "tags", "metadata", "timeout")
STREAM_NAMES = (*NAMES, "on_disconnect")
REPLAY_NAMES = ("language_model", "version", "replay_of")
"""What makes a run another than anybody's: for those who may replay traces."""


def run_options(given: Mapping[str, Any], pointer: str = "", names: Sequence[str] = NAMES) -> RunOptions:
    """The options that `given` holds, from JSON; None stands for an option that is not given. `names` are allowed.

    Raises:
        InvalidInput: with a pointer, below `pointer`, for every fault, unknown names included.
    """
    options = {name: value for name, value in given.items() if value is not None}
    faults = [Fault(f"{pointer}/{name}", message) for name, message in _faults(options, names)]
    if faults:
        raise InvalidInput(faults)
    options["tags"] = tuple(options.get("tags", ()))
    return RunOptions(**options)


def _faults(options: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        check = _CHECKS[name] if name in names else None
        message = check(value) if check else "Not an option of a run."
        if message:
            yield name.encode("utf-8", "replace").decode(), message


def _timeout(value: Any) -> str | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if is_number and 0 < value < float("inf") else "A number of seconds above 0 is needed."


def _session_id(value: Any) -> str | None:
    return None if _is_label(value) else f"A string of at most {MAX_LABEL} characters is needed."


def _tags(value: Any) -> str | None:
    limit = settings().max_tags
    if isinstance(value, list | tuple) and len(value) <= limit and all(_is_label(tag) for tag in value):
        return None
    return f"A list of at most {limit} strings of at most {MAX_LABEL} characters is needed."


def _metadata(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "An object is needed."
    limit = settings().max_metadata
    try:
        return None if len(encode(value)) <= limit else f"At most {limit} bytes of JSON."
    except RecursionError:
        return "It nests too deep."


def _on_disconnect(value: Any) -> str | None:
    return None if value in ("cancel", "continue") else "One of cancel, continue is needed."


def _language_model(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "The name of a language model is needed."


def _version(value: Any) -> str | None:
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return None if is_number else "The number of a version is needed, or 0 for none."


def _replay_of(value: Any) -> str | None:
    return None if isinstance(value, str) and _TRACE_ID.fullmatch(value) else "A trace id of 32 hex digits is needed."


def _is_label(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_LABEL


_CHECKS = {
    "timeout": _timeout,
    "session_id": _session_id,
    "tags": _tags,
    "metadata": _metadata,
    "on_disconnect": _on_disconnect,
    "language_model": _language_model,
    "version": _version,
    "replay_of": _replay_of,
}
