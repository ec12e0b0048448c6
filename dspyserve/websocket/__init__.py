"""The WebSocket door: many executions at once on one socket, in JSON messages, by Channels.

Translates between the socket and `runs`; may import everything below it, and no other door.
"""
