"""What an execution leaves behind: records become rows, rows are committed in groups, what cannot be stored waits.

Stands beside `programs` on `models`. Shares `events` with `execution` and does not know it.
"""
