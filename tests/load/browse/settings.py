"""The example deployment, on the database that the benchmark fills."""

import os

os.environ.setdefault("SECRET_KEY", "only-for-benchmarks")

from project.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
