"""How one execution happens: isolation, threads, capacity, recording, streaming.

Lives above `programs`. Shares `events` with `tracing` and does not know it; knows nothing of HTTP or of the database.
"""
