"""The REST door: JSON and server-sent events over HTTP, by django-ninja.

Translates between HTTP and `runs`; may import everything below it, and no other door.
"""
