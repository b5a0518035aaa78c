"""What a figure was measured on: without it a figure says nothing."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from loadtest.machine import describe_machine

__all__ = ["describe", "insert_ceiling"]


def describe(database_url: str) -> dict[str, Any]:
    """Date, processor, memory, versions, and the database's durability settings."""
    with psycopg.connect(database_url) as connection:
        settings: dict[str, str] = dict(
            connection.execute(
                "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)",
                (["server_version", "fsync", "synchronous_commit", "full_page_writes"],),
            ).fetchall()
        )
    return describe_machine() | {"postgresql": settings}


def insert_ceiling(database_url: str, seconds: float = 2.0) -> float:
    """Plain one-row INSERTs a second on one connection, each committed: what the disk allows."""
    with psycopg.connect(database_url, autocommit=True, prepare_threshold=0) as connection:
        connection.execute("CREATE TABLE bench_ceiling (id bigint, body text)")
        try:
            count, give_up = 0, time.perf_counter() + seconds
            while time.perf_counter() < give_up:
                connection.execute("INSERT INTO bench_ceiling VALUES (%s, %s)", (count, "x" * 300))
                count += 1
        finally:
            connection.execute("DROP TABLE bench_ceiling")
    return count / seconds
