"""The deployment of benchmarks, with the programs that are compared."""

from tests.load.settings import *  # noqa: F403
from tests.load.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.load.serving"]
