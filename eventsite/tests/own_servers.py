"""A pytest plugin: each worker of pytest-xdist gets servers of its own before Django is set up.

Tests of one file stay together (`--dist loadfile`); files side by side share nothing, neither
topics nor queues nor tables.
"""

from __future__ import annotations

import atexit
import os

import psycopg

from eventsite.localstack import LocalStack


def _start() -> None:
    stack = LocalStack.ephemeral(servers_only=True, own_servers=True, report=lambda _: None)
    stack.start()
    atexit.register(stack.stop)
    os.environ.update(stack.env)
    with psycopg.connect(stack.env["DATABASE_URL"], autocommit=True) as connection:
        # No test pulls this machine's plug; emptying the tables between tests is most of the wait.
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")


if "PYTEST_XDIST_WORKER" in os.environ:
    _start()
