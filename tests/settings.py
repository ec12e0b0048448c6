"""The example deployment's settings, as the tests need them."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("SECRET_KEY", "only-for-tests")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

from project.settings import *  # noqa: E402, F403
from project.settings import DATABASES, DSPYSERVE, INSTALLED_APPS

_DIRECTORY = Path(tempfile.gettempdir()) / f"dspyserve-tests-{os.getpid()}"

# Pool and writer threads take part: an in-memory database would be another one for each of them.
if "sqlite" in DATABASES["default"]["ENGINE"]:
    DATABASES["default"]["TEST"] = {"NAME": str(_DIRECTORY / "test.sqlite3")}
    _DIRECTORY.mkdir(exist_ok=True)

INSTALLED_APPS = [*INSTALLED_APPS, "tests"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DSPYSERVE = {**DSPYSERVE, "TRACE_SPOOL": str(_DIRECTORY / "spool")}
