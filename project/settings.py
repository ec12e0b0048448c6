"""The example deployment: SQLite, the in-memory channel layer and the demo engine, unless the environment says more.

| variable | meaning | default |
|---|---|---|
| `DATABASE_URL` | the database | SQLite in `var/` |
| `REDIS_URL` | Redis, for the channel layer and the cache | in memory |
| `SECRET_KEY` | Django's secret key | made once, kept in `var/` |
| `ALLOWED_HOSTS` | hosts, with commas | the loopback addresses |
| `CSRF_TRUSTED_ORIGINS` | origins, with commas | none |
| `CORS_ALLOWED_ORIGINS` | origins of pages that may call the API, with commas | none |
| `DEBUG` | Django's debug mode | off |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import environ
from corsheaders.defaults import default_headers
from django.core.management.utils import get_random_secret_key

from project.loopback import are_loopback

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

env = environ.Env()


def _secret_key() -> str:
    path = VAR_DIR / "secret_key"
    if not path.exists():
        VAR_DIR.mkdir(exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(get_random_secret_key())
    return path.read_text().strip()


def _database(url: str) -> dict[str, Any]:
    database: dict[str, Any] = env.db_url_config(url)
    if "postgresql" in database["ENGINE"]:
        # Under ASGI every request may come in a thread of its own: connections are kept in a pool, not by threads.
        pool = {"min_size": 2, "max_size": env.int("DATABASE_POOL", default=20), "timeout": 5}
        return database | {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": True, "OPTIONS": {"pool": pool}}
    # Traces dirty the same pages of their indexes again and again: the log may grow to 16 MiB before they are moved.
    log = ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=4000")
    pragmas = ("busy_timeout=20000", *log, "temp_store=MEMORY")
    return database | {
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "".join(f"PRAGMA {pragma};" for pragma in pragmas),
        }
    }


SECRET_KEY = env.str("SECRET_KEY", default="") or _secret_key()
DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
DEMO_IS_OPEN = are_loopback(ALLOWED_HOSTS)
"""Whether anybody may run the demo programs. Only on this machine: `project/asgi.py` then refuses other clients."""

CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "corsheaders",
    "ninja",
    "dspyserve",
    "project",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

CORS_ALLOWED_ORIGINS = env.list("CORS_ALLOWED_ORIGINS", default=[])
CORS_URLS_REGEX = r"^/api/"
CORS_ALLOW_HEADERS = (
    *default_headers,
    "idempotency-key",
    "last-event-id",
    "traceparent",
    "x-request-id",
    "x-resume-token",
)
CORS_EXPOSE_HEADERS = (
    "Idempotent-Replayed",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Batch-Id",
    "X-Request-ID",
    "X-Trace-Id",
)

ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": _database(env.str("DATABASE_URL", default=f"sqlite:///{VAR_DIR / 'db.sqlite3'}"))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default="")
CHANNEL_LAYERS: dict[str, Any] = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
CACHES: dict[str, Any] = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
if REDIS_URL:
    # Without socket_timeout=None, redis-py 8 ends every WebSocket that is silent for five seconds.
    _hosts = [{"address": REDIS_URL, "socket_timeout": None}]
    CHANNEL_LAYERS["default"] = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": _hosts}}
    CACHES["default"] = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {"dspyserve": {"handlers": ["console"], "level": "INFO"}},
}

DSPYSERVE: dict[str, Any] = {"REDIS_URL": REDIS_URL}
