"""What people and programs say of traces, through every door alike.

May import `access`, `programs`, `tracing` and what is below them; knows nothing of HTTP.
"""
