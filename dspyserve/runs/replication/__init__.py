"""Streams in Redis, so that any process can read them on: published by the one that runs, followed by the others.

Works where the setting `REDIS_URL` is given. Nothing waits for Redis: while it is away, streams are read on from the
memory of the process that runs them, and published later.
"""

from dspyserve.runs.replication.follower import Replica, follower
from dspyserve.runs.replication.publisher import publisher

__all__ = ["Replica", "follower", "publisher"]
