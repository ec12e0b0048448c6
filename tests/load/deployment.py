"""Our server, as a benchmark serves it: the example deployment on a database of its own, with one language model."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.load.processes import ROOT, Process, uvicorn

_KEY = "benchmark"


def deploy(settings: str, directory: Path, database: str, provider: str) -> dict[str, str]:
    """Make the tables and the language model; the environment in which the server finds them.

    `provider` is the address of the language model, `directory` is for what the server writes.
    """
    environment = environment_of(settings, directory, database)
    run(environment, "-m", "tests.load.deployment", provider)
    return environment


def environment_of(settings: str, directory: Path, database: str) -> dict[str, str]:
    """Variables of a server with these settings on this database."""
    return {
        "DJANGO_SETTINGS_MODULE": settings,
        "BENCHMARK_DIRECTORY": str(directory),
        "DATABASE_URL": database,
        "BENCHMARK_API_KEY": _KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    }


def serve(environment: Mapping[str, str], log: Path, *options: str) -> Process:
    """Our server in such an environment."""
    return uvicorn(sys.executable, "project.asgi:application", log, environment, *options)


def run(environment: Mapping[str, str], *arguments: str) -> None:
    """Run Python in such an environment."""
    subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **environment}, check=True, stdout=sys.stderr
    )


def main() -> None:
    """Make the tables of the database, and the language model: in one process, for starting takes the most time."""
    import django
    from django.core.management import call_command

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("provider")
    django.setup()
    call_command("migrate", verbosity=0)
    provider = ["--api-base", parser.parse_args().provider, "--api-key-env", "BENCHMARK_API_KEY"]
    call_command("add_language_model", "bench", "openai/gpt-4o-mini", *provider, "--default")


if __name__ == "__main__":
    main()
