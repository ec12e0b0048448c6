"""The saved state of a program: `dump_state()` stored as JSON, loaded by whitelist."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import dspy

from dspyserve.errors import ConfigurationError

ALLOWED_KEYS: Final = frozenset({"traces", "train", "demos", "signature", "fields"})
"""What may be set on a predictor: `Predict.load_state` sets any attribute that it does not know."""

DROPPED_KEYS: Final = frozenset({"lm"})


def load_state(program: dspy.Module, state: Mapping[str, Any]) -> None:
    """Load `state`, as `program.dump_state()` gave it, into `program`.

    Raises:
        ConfigurationError: the state has unknown keys, holds source code, or does not fit the program's predictors.
    """
    predictors = dict(program.named_parameters())
    entries = {name: entry for name, entry in state.items() if name != "metadata"}
    if isinstance(program, dspy.Predict) and set(predictors) == {"self"} and "self" not in entries:
        entries = {"self": entries}
    if unknown := sorted(set(entries) - set(predictors)):
        raise ConfigurationError(f"the state names predictors that the program does not have: {', '.join(unknown)}")
    if missing := sorted(set(predictors) - set(entries)):
        raise ConfigurationError(f"the state lacks the program's predictors: {', '.join(missing)}")
    for name, entry in entries.items():
        _load_predictor(name, predictors[name], entry)


def _load_predictor(name: str, predictor: Any, entry: Any) -> None:
    if not isinstance(predictor, dspy.Predict) or not isinstance(entry, Mapping):
        raise ConfigurationError(f"the state of {name!r} is not that of a dspy.Predict")
    if unknown := sorted(set(entry) - ALLOWED_KEYS - DROPPED_KEYS):
        raise ConfigurationError(f"the state of {name!r} has keys that are not loaded: {', '.join(unknown)}")
    fields = len(entry.get("signature", {}).get("fields", ()))
    if fields != len(predictor.signature.fields):
        raise ConfigurationError(
            f"the state of {name!r} has {fields} fields, its signature {len(predictor.signature.fields)}"
        )
    clean = {key: value for key, value in entry.items() if key in ALLOWED_KEYS}
    try:
        predictor.load_state({**clean, "lm": None})
    except Exception as error:
        raise ConfigurationError(f"the state of {name!r} cannot be loaded: {error}") from error


def signature_hash(program: dspy.Module) -> str:
    """A hash of the names and order of all predictors' fields: states match fields by position."""
    shape = [f"{name}:{','.join(predictor.signature.fields)}" for name, predictor in program.named_predictors()]
    return hashlib.sha256("\n".join(shape).encode()).hexdigest()
