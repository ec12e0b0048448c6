"""The ASGI application of the example deployment: HTTP by Django, WebSockets by Channels, both drained at shutdown."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

# Before the imports below, which need the apps to be loaded.
django_application = get_asgi_application()

from django.conf import settings  # noqa: E402

from dspyserve.asgi import serve  # noqa: E402
from dspyserve.lean import lean_api  # noqa: E402
from dspyserve.websocket.routing import websocket_urlpatterns  # noqa: E402
from project.loopback import loopback_only  # noqa: E402

application = serve(
    ProtocolTypeRouter(
        {
            "http": lean_api(django_application),
            "websocket": AuthMiddlewareStack(URLRouter(websocket_urlpatterns)),
        }
    )
)
if settings.DEMO_IS_OPEN:
    application = loopback_only(application)
