"""The virtual environment of what the server is compared with: FastAPI, uvicorn, and DSPy of our version."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from tests.load.streams.processes import ROOT

_DIRECTORY = ROOT / "var" / "benchmark" / "fastapi"
_SAME = ("dspy", "uvicorn", "uvloop", "httptools", "orjson", "pydantic", "anyio")
"""What both environments have, in one version."""


@cache
def baseline_python() -> Path:
    """The environment's interpreter. Made where it is missing, which takes a minute or two."""
    python = _DIRECTORY / "bin" / "python"
    if not python.exists():
        print(f"making {_DIRECTORY.relative_to(ROOT)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", _DIRECTORY], check=True)
    wanted = sorted({"fastapi", *(f"{name}=={version(name)}" for name in _SAME)})
    marker = _DIRECTORY / "installed.txt"
    if not marker.exists() or marker.read_text().split() != wanted:
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        subprocess.run(install, check=True, stdout=sys.stderr)
        marker.write_text("\n".join(wanted))
    return python
