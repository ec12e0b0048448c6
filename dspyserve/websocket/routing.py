"""The addresses of the sockets: `URLRouter(websocket_urlpatterns)`, within `channels.auth.AuthMiddlewareStack`."""

from django.urls import path

from dspyserve.websocket.consumer import ProgramConsumer

websocket_urlpatterns = [path("ws/programs/<str:name>", ProgramConsumer.as_asgi())]
