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

METADATA: Final = "metadata"
"""Where `program.save` writes the versions of Python and DSPy."""


def load_state(program: dspy.Module, state: Mapping[str, Any]) -> None:
    """Load `state`, as `program.dump_state()` gave it, into `program`.

    Raises:
        ConfigurationError: the state has unknown keys, holds source code, or does not fit the program's predictors.
    """
    predictors = dict(program.named_parameters())
    entries = predictor_states(state)
    if unknown := sorted(set(entries) - set(predictors)):
        raise ConfigurationError(f"the state names predictors that the program does not have: {', '.join(unknown)}")
    if missing := sorted(set(predictors) - set(entries)):
        raise ConfigurationError(f"the state lacks the program's predictors: {', '.join(missing)}")
    for name, entry in entries.items():
        _load_predictor(name, predictors[name], entry)


def predictor_states(state: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a state by the names of their predictors. A program that is a predictor itself is `self`."""
    entries = {name: entry for name, entry in state.items() if name != METADATA}
    signature = entries.get("signature")
    return {"self": entries} if isinstance(signature, Mapping) and "fields" in signature else entries


def prefixes(entry: Any) -> list[str]:
    """How the fields of a predictor are called in its state, in order: `Question` for `question`."""
    signature = entry.get("signature") if isinstance(entry, Mapping) else None
    fields = signature.get("fields") if isinstance(signature, Mapping) else None
    return [_prefix(field) for field in fields] if isinstance(fields, list | tuple) else []


def _prefix(field: Any) -> str:
    return str(field.get("prefix", "")).rstrip(": ") if isinstance(field, Mapping) else ""


def mismatches(program: dspy.Module, state: Mapping[str, Any]) -> list[str]:
    """What speaks against `state` being one of the fields of `program`, a sentence for each predictor.

    A state has no names of fields, but the headings that prompts give them, which follow from the names. Optimizers
    may write others, so that this is a doubt and no proof.
    """
    entries, found = predictor_states(state), []
    for name, predictor in program.named_parameters():
        saved, own = prefixes(entries.get(name)), prefixes({"signature": predictor.signature.dump_state()})
        if saved != own:
            found.append(f"{name} has the fields {', '.join(own)}, its state {', '.join(saved)}")
    return found


def _load_predictor(name: str, predictor: Any, entry: Any) -> None:
    if not isinstance(predictor, dspy.Predict) or not isinstance(entry, Mapping):
        raise ConfigurationError(f"the state of {name!r} is not that of a dspy.Predict")
    if unknown := sorted(set(entry) - ALLOWED_KEYS - DROPPED_KEYS):
        raise ConfigurationError(f"the state of {name!r} has keys that are not loaded: {', '.join(unknown)}")
    fields = len(prefixes(entry))
    if fields != len(predictor.signature.fields):
        raise ConfigurationError(
            f"the state of {name!r} has {fields} fields, its signature {len(predictor.signature.fields)}"
        )
    demos = entry.get("demos", [])
    if not isinstance(demos, list) or not all(isinstance(demo, Mapping) for demo in demos):
        raise ConfigurationError(f"the demos of {name!r} are not a list of objects")
    clean = {key: value for key, value in entry.items() if key in ALLOWED_KEYS}
    try:
        predictor.load_state({**clean, "lm": None})
    except Exception as error:
        raise ConfigurationError(f"the state of {name!r} cannot be loaded: {error}") from error


def signature_hash(program: dspy.Module) -> str:
    """A hash of the names and order of all predictors' fields: states match fields by position."""
    shape = [f"{name}:{','.join(predictor.signature.fields)}" for name, predictor in program.named_predictors()]
    return hashlib.sha256("\n".join(shape).encode()).hexdigest()
