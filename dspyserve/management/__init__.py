"""The command line door: provisioning by script, running programs from a shell, the quick start.

May import everything below it, and no other door.
"""
