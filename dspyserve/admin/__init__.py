"""The admin door: language models, programs, API keys, and the browser of traces.

May import everything below it, and no other door.
"""

from dspyserve.admin.api_key import APIKeyAdmin
from dspyserve.admin.language_model import LanguageModelAdmin
from dspyserve.admin.programs.admin import ProgramAdmin
from dspyserve.admin.traces.admin import TraceAdmin

__all__ = ["APIKeyAdmin", "LanguageModelAdmin", "ProgramAdmin", "TraceAdmin"]
