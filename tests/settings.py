"""The example deployment's settings, as the tests need them."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("SECRET_KEY", "only-for-tests")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

from project.settings import *  # noqa: F403
from project.settings import CACHES, DATABASES, DSPYSERVE, INSTALLED_APPS, MIDDLEWARE, REDIS_URL

if "DSPYSERVE_TESTS_DIRECTORY" not in os.environ:
    # Inherited by the servers that tests start.
    os.environ["DSPYSERVE_TESTS_DIRECTORY"] = tempfile.mkdtemp(prefix="dspyserve-tests-")
    atexit.register(shutil.rmtree, os.environ["DSPYSERVE_TESTS_DIRECTORY"], ignore_errors=True)
_DIRECTORY = Path(os.environ["DSPYSERVE_TESTS_DIRECTORY"])

if name := os.environ.get("DSPYSERVE_TESTS_DATABASE"):
    # A server process of a test, which works on the database of that test.
    DATABASES["default"]["NAME"] = name
elif "sqlite" in DATABASES["default"]["ENGINE"]:
    # Pool and writer threads take part: an in-memory database would be another one for each of them.
    DATABASES["default"]["TEST"] = {"NAME": str(_DIRECTORY / f"test-{os.getpid()}.sqlite3")}

if REDIS_URL and (worker := os.environ.get("PYTEST_XDIST_WORKER")):
    # Tests empty whole databases of Redis: every worker has its own.
    address, _, number = REDIS_URL.rpartition("/")
    REDIS_URL = f"{address}/{int(number) + 1 + int(worker.removeprefix('gw'))}"
    CACHES["default"]["LOCATION"] = REDIS_URL

INSTALLED_APPS = [*INSTALLED_APPS, "tests"]
MIDDLEWARE = [*MIDDLEWARE, "tests.content_security.content_security"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DSPYSERVE = {
    **DSPYSERVE,
    "REDIS_URL": REDIS_URL,
    "TRACE_SPOOL": str(_DIRECTORY / f"spool-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"),
    "POOL_QUEUE": int(os.environ.get("DSPYSERVE_TESTS_POOL_QUEUE", "128")),
    "WEBSOCKET_IDLE": float(os.environ.get("DSPYSERVE_TESTS_IDLE", "60")),
    "STREAM_BUFFER": int(os.environ.get("DSPYSERVE_TESTS_STREAM_BUFFER", "1000")),
    "WEBSOCKET_HEARTBEAT": float(os.environ.get("DSPYSERVE_TESTS_HEARTBEAT", "15")),
    "SSE_KEEPALIVE": float(os.environ.get("DSPYSERVE_TESTS_KEEPALIVE", "15")),
    "SHUTDOWN_GRACE": float(os.environ.get("DSPYSERVE_TESTS_GRACE", "10")),
}
