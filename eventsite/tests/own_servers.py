"""A pytest plugin: each worker of pytest-xdist gets servers of its own before Django is set up.

Tests of one file stay together (`--dist loadfile`); files side by side share nothing, neither
topics nor queues nor tables.
"""

from __future__ import annotations

import atexit
import os

from eventsite.localstack import LocalStack


def _start() -> None:
    stack = LocalStack.ephemeral(servers_only=True, own_servers=True, report=lambda _: None)
    stack.start()
    atexit.register(stack.stop)
    os.environ.update(stack.env)


if "PYTEST_XDIST_WORKER" in os.environ:
    _start()
