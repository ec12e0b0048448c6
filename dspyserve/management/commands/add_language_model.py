"""`manage.py add_language_model NAME MODEL`."""

from __future__ import annotations

import json
from argparse import BooleanOptionalAction
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from dspyserve.management.rows import given, save, seconds
from dspyserve.models import LanguageModel

_COLUMNS = {
    "model": "model",
    "api_base": "api_base",
    "api_key_env": "api_key_env",
    "parameters": "parameters",
    "timeout": "timeout",
    "num_retries": "num_retries",
    "cache": "cache",
    "default": "is_default",
}


class Command(BaseCommand):
    help = "Make or change a language model. Options that are not given stay as they are."

    def add_arguments(self, parser: CommandParser) -> None:
        """The columns of a language model."""
        parser.add_argument("name", help="the alias that programs choose")
        parser.add_argument("model", help="provider and model, such as openai/gpt-5-mini")
        parser.add_argument("--api-base", metavar="URL", help="the base URL of a compatible server")
        parser.add_argument("--api-key-env", metavar="VAR", help="the environment variable that holds the key")
        parser.add_argument("--parameters", metavar="JSON", help="sent with every call")
        parser.add_argument("--timeout", metavar="S", type=seconds, help="seconds per call")
        parser.add_argument("--num-retries", metavar="N", type=int, help="how often a failed call is tried again")
        parser.add_argument("--cache", action=BooleanOptionalAction, help="answer equal calls from DSPy's cache")
        parser.add_argument("--default", action="store_true", default=None, help="for programs that choose none")

    def handle(self, *args: Any, **options: Any) -> None:
        """Save it."""
        row = LanguageModel.objects.filter(name=options["name"]).first() or LanguageModel(name=options["name"])
        values = given(options, _COLUMNS)
        if "parameters" in values:
            values["parameters"] = _json_object(values["parameters"])
        done = save(row, values)
        self.stdout.write(f"language model {row.name}: {done}")


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CommandError(f"--parameters is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CommandError("--parameters must be a JSON object")
    return value
