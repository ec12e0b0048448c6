"""What is stored: language models, programs with their versions, and traces.

Lives above `conf` and `errors` and imports nothing else of dspyserve. No model knows how a program runs.
"""

from dspyserve.models.api_key import APIKey
from dspyserve.models.feedback import Feedback
from dspyserve.models.idempotency_key import IdempotencyKey
from dspyserve.models.language_model import LanguageModel
from dspyserve.models.program import Program, ProgramVersion
from dspyserve.models.rollup import TraceRollup
from dspyserve.models.saved_view import SavedView
from dspyserve.models.trace import Span, SpanPayload, Trace

__all__ = [
    "APIKey",
    "Feedback",
    "IdempotencyKey",
    "LanguageModel",
    "Program",
    "ProgramVersion",
    "SavedView",
    "Span",
    "SpanPayload",
    "Trace",
    "TraceRollup",
]
