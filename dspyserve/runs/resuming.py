"""Streams that were begun: reading them on, and stopping their runs."""

from __future__ import annotations

import asyncio
import logging
import re

from dspyserve.conf import settings
from dspyserve.errors import Overloaded, StreamNotFound
from dspyserve.execution.event_log import Trimmed
from dspyserve.runs.open_streams import open_streams
from dspyserve.runs.replication import follower
from dspyserve.runs.stream import RunStream, StreamSource

logger = logging.getLogger(__name__)

_TRACE_ID = re.compile("[0-9a-f]{32}")
_PUBLISHED = 0.1
"""Seconds after which a stream that has just begun in another process can be found."""


async def aresume(trace_id: str, *, owner: str, after: int = 0) -> RunStream:
    """The stream of a run once more, from after the event of number `after`, in any process that shares Redis.

    Raises:
        StreamNotFound: it is not `owner`'s, it ended more than `STREAM_RESUME` seconds ago, or these events are not
            kept any more.
    """
    source = await _owned(trace_id, owner)
    try:
        source.log.since(after, 1)
    except Trimmed:
        raise StreamNotFound("The events from there on are not kept any more.") from None
    return RunStream(source, after)


async def acancel(trace_id: str, *, owner: str) -> None:
    """Stop the run of a stream, which goes on to its terminal event; one that is over stays as it is.

    Raises:
        StreamNotFound: it is not `owner`'s, or not kept any more.
    """
    (await _owned(trace_id, owner)).stop("client")


async def _owned(trace_id: str, owner: str) -> StreamSource:
    source = open_streams.find(trace_id)
    if source is None and settings().redis_url:
        source = await _elsewhere(trace_id)
    if source is None or not owner or source.owner != owner:
        # Nobody is told that there is a stream of somebody else's.
        raise StreamNotFound("There is no such stream, not any more, or not for you.")
    return source


async def _elsewhere(trace_id: str) -> StreamSource | None:
    """The stream of another process."""
    if not _TRACE_ID.fullmatch(trace_id):
        return None
    try:
        for pause in (_PUBLISHED, 0):
            if (found := await asyncio.to_thread(follower.find, trace_id)) is not None:
                return found
            await asyncio.sleep(pause)
    except Exception as error:
        logger.warning("Redis does not tell of streams: %s", type(error).__name__)
        raise Overloaded("Streams of other processes cannot be read at the moment.", retry_after=1.0) from error
    return None
