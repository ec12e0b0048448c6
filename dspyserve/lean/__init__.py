"""Django's handler for the API without its threads: `"http": lean_api(get_asgi_application())`.

The stock one starts two threads for a request, keeps one for as long as the request goes on, and hops to it for signals
and for every middleware: more work than most calls of the API are. Here a request has a thread only if something
asks for one. Everything else is Django's: the project's middleware, cancellation, streaming, the logging of errors.
May import what the doors may.
"""

from dspyserve.lean.handler import LeanHandler, lean_api

__all__ = ["LeanHandler", "lean_api"]
