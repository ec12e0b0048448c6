"""From a stored language model to the `dspy.LM` that executions copy."""

from __future__ import annotations

import os
from typing import Any

import dspy
from dspy.lm15 import RouterConfig

from dspyserve.conf import settings
from dspyserve.errors import ConfigurationError
from dspyserve.models import LanguageModel
from dspyserve.models.language_model import SECRET_PARAMETERS, api_base_fault, is_allowed_key_variable
from dspyserve.programs.demo_engine import AsyncDemoEngine, DemoEngine
from dspyserve.shortcuts import install
from dspyserve.shortcuts.served_lm import ServedLM

DEMO_PREFIX = "demo/"
"""Models of this provider run on the embedded offline engine."""

NO_KEY = "no-key"
"""Sent where an address is given without a key: DSPy would otherwise send that host the provider's key it finds."""


def build_language_model(row: LanguageModel) -> dspy.LM:
    """The template that executions copy: it holds the connection pools, which the copies share.

    Raises:
        ConfigurationError: the address or the key's variable is not allowed, the key is not set, or DSPy refuses
            the parameters.
    """
    _allow_connections(settings().lm_connections)
    install()
    try:
        if row.model.startswith(DEMO_PREFIX):
            return _demo(row)
        return ServedLM(
            row.model,
            cache=row.cache,
            num_retries=row.num_retries,
            timeout=row.timeout,
            **_client(row),
            **_parameters(row),
        )
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(f"language model {row.name!r} cannot be built: {error}") from error


def _allow_connections(count: int) -> None:
    """Let a language model have `count` connections at a time in this process.

    DSPy's native engine has 100, whatever `dspy.LM` is given: the next call waits, without a word, for one to end.
    """
    RouterConfig.__init__.__kwdefaults__["max_connections"] = count


def _demo(row: LanguageModel) -> dspy.LM:
    parameters = _parameters(row)
    delay = float(parameters.pop("delay", 0.0))
    return dspy.LM(
        row.model, engine=DemoEngine(delay=delay), async_engine=AsyncDemoEngine(delay=delay), cache=False, **parameters
    )


def _parameters(row: LanguageModel) -> dict[str, Any]:
    return {key: value for key, value in row.parameters.items() if key not in SECRET_PARAMETERS}


def _client(row: LanguageModel) -> dict[str, str]:
    client = {}
    if row.api_base:
        if fault := api_base_fault(row.api_base):
            raise ConfigurationError(f"language model {row.name!r} may not call {row.api_base}: {fault}")
        client = {"api_base": row.api_base, "api_key": NO_KEY}
    if row.api_key_env:
        client["api_key"] = _key(row)
    return client


def _key(row: LanguageModel) -> str:
    # Checked again here: a row may have been written past the form's validation.
    if not is_allowed_key_variable(row.api_key_env):
        raise ConfigurationError(f"language model {row.name!r} may not read the variable {row.api_key_env}")
    key = os.environ.get(row.api_key_env, "")
    if not key:
        raise ConfigurationError(f"language model {row.name!r} needs the environment variable {row.api_key_env}")
    return key
