"""Bodies that are sent piece by piece."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

from django.http import StreamingHttpResponse

from dspyserve.errors import RequestError
from dspyserve.problems import as_request_error

logger = logging.getLogger(__name__)


class StreamedBody:
    """The pieces of `chunks`, and where one fails, what `told` makes of the error as the last one.

    Once the headers are out, Django neither answers an error nor closes the response: the client would wait in vain,
    and the request's database connection would never go back to its pool. An object rather than a generator, since
    Django always calls its `close`, which calls `closed`.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        told: Callable[[RequestError], bytes],
        closed: Callable[[], None] | None = None,
    ) -> None:
        self._chunks = chunks
        self._told = told
        self._closed = closed
        self._has_failed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._has_failed:
            raise StopAsyncIteration
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            logger.exception("A streamed answer failed")
            self._has_failed = True
            return self._told(as_request_error(error))

    def close(self) -> None:
        """The response is over."""
        if self._closed is not None:
            self._closed()


def unbuffered(body: AsyncIterator[bytes], content_type: str) -> StreamingHttpResponse:
    """The response that streams `body`, every piece of which reaches the client at once."""
    response = StreamingHttpResponse(body, content_type=content_type)
    response["Cache-Control"] = "no-cache, no-transform"
    # Django's GZipMiddleware would hold pieces back; it leaves alone what is encoded already.
    response["Content-Encoding"] = "identity"
    response["X-Accel-Buffering"] = "no"
    return response
