"""Databases that benchmarks make for themselves, on PostgreSQL."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def create(url: str) -> None:
    """Make the database where it is missing. One of SQLite comes by itself.

    Raises:
        psycopg.OperationalError: the server cannot be reached.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return
    import psycopg

    name = parts.path.removeprefix("/")
    with psycopg.connect(_server(parts), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
            connection.execute(f'CREATE DATABASE "{name}"')


def drop(url: str) -> None:
    """Remove a database of PostgreSQL, whoever is connected to it."""
    import psycopg

    parts = urlsplit(url)
    with psycopg.connect(_server(parts), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{parts.path.removeprefix("/")}" WITH (FORCE)')


def _server(parts: SplitResult) -> str:
    return parts._replace(path="/postgres").geturl()
