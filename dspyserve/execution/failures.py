"""What a program raised, in the words of `errors`: the table of DSPy's errors and the HTTP statuses they stand for."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

from dspy.utils import exceptions as dspy_errors

from dspyserve.errors import LMError, OutputUnparsable, ProgramError, RateLimited, RequestError, RunTimeout, TooLarge
from dspyserve.events import Failure
from dspyserve.execution.snapshots import message_of

logger = logging.getLogger(__name__)

_MISCONFIGURED = (
    dspy_errors.LMAuthError,
    dspy_errors.LMBillingError,
    dspy_errors.LMConfigurationError,
    dspy_errors.LMUnsupportedFeatureError,
    dspy_errors.LMLockTimeoutError,
)

TRACEBACK_FRAMES = 30


def request_error(error: BaseException) -> RequestError:
    """What a client is told of `error`: nothing of its text, which may come from a provider or a model."""
    if isinstance(error, RequestError):
        # Of a run inside the run: its own cause is what happened.
        return request_error(error.__cause__) if error.__cause__ is not None else ProgramError()
    translated = _translate(error)
    translated.__cause__ = error
    return translated


def _translate(error: BaseException) -> RequestError:
    match error:
        case dspy_errors.LMRateLimitError():
            retry_after = error.retry_after if error.retry_after is not None else 1.0
            return RateLimited("The language model's provider is limiting requests.", retry_after=retry_after)
        case dspy_errors.LMTimeoutError():
            return RunTimeout("The language model's provider did not answer in time.")
        case dspy_errors.LMTransportError() if _is_timeout(error):
            return RunTimeout("The language model's provider did not answer in time.")
        case dspy_errors.ContextWindowExceededError():
            return TooLarge("The prompt does not fit the language model's context window.")
        case dspy_errors.AdapterParseError():
            return OutputUnparsable("The language model's answer does not fit the program's signature.")
        case _ if isinstance(error, _MISCONFIGURED):
            return ProgramError("The program's language model is not configured correctly.")
        case dspy_errors.LMError():
            return LMError("The language model's provider failed.")
        case _:
            return ProgramError("The program raised an error.")


def failure(error: BaseException, told: RequestError) -> Failure:
    """What the trace keeps of `error`, all of it, and the code that the client was told."""
    frames = traceback.format_exception(type(error), error, error.__traceback__, limit=-TRACEBACK_FRAMES)
    return Failure(type=type(error).__name__, message=message_of(error), code=told.code, traceback="".join(frames))


def _is_timeout(error: BaseException) -> bool:
    return any("timeout" in type(cause).__name__.lower() for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error.__cause__ or error.__context__
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
