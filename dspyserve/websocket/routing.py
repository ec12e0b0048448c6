"""The addresses of the sockets: `URLRouter(websocket_urlpatterns)`, within `channels.auth.AuthMiddlewareStack`."""

from django.urls import path

from dspyserve.conf import settings
from dspyserve.websocket.consumer import ProgramConsumer

websocket_urlpatterns = [path(f"{settings().websocket_path.strip('/')}/<str:name>", ProgramConsumer.as_asgi())]
