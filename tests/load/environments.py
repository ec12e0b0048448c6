"""Virtual environments of what the server is compared with, each with DSPy of our version."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from tests.load.processes import ROOT

_DIRECTORY = ROOT / "var" / "benchmark"
_SAME = ("dspy", "uvicorn", "uvloop", "httptools", "orjson", "pydantic", "anyio")
"""What all environments have, in our version."""


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment of the name, in which the requirements are installed."""

    name: str
    requirements: tuple[str, ...]

    @property
    def directory(self) -> Path:
        """Where it is, or will be."""
        return _DIRECTORY / self.name

    @cache  # noqa: B019 - there are as many as constants below
    def python(self) -> Path:
        """The environment's interpreter. Made where it is missing, which takes a minute or two."""
        python = self.directory / "bin" / "python"
        if not python.exists():
            print(f"making {self.directory.relative_to(ROOT)}", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", self.directory], check=True)
        wanted = sorted({*self.requirements, *(f"{name}=={version(name)}" for name in _SAME)})
        marker = self.directory / "installed.txt"
        if not marker.exists() or marker.read_text().split() != wanted:
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
            subprocess.run(install, check=True, stdout=sys.stderr)
            marker.write_text("\n".join(wanted))
        return python


FASTAPI = Environment("fastapi", ("fastapi",))
DSPY_CLI = Environment("dspy-cli", ("dspy-cli==0.1.13",))
