"""A pytest plugin: each worker of pytest-xdist gets servers of its own before Django is set up.

Tests of one file stay together (`--dist loadfile`); files side by side share nothing, neither
topics nor queues nor tables.
"""

from __future__ import annotations

import atexit
import os
from functools import cache

from devtools.localstack import LocalStack
from devtools.localstack.unit import Unit
from devtools.testing import zygote

_running: list[LocalStack] = []


@cache
def rabbitmq_url() -> str:
    """Of this worker's RabbitMQ, which starts with the first test that asks. It is of this machine,
    or the stand-in where AMQP_BROKER=qpid asks for it."""
    [stack] = _running
    server = stack.add_rabbitmq()
    assert server is not None, "there is neither RabbitMQ nor what the stand-in needs"
    return server.environment["RABBITMQ_URL"]


def rabbitmq_unit() -> Unit:
    """The handle on it, to kill, freeze and start it again."""
    rabbitmq_url()
    [stack] = _running
    return stack.server("rabbitmq")


def kafka_unit() -> Unit:
    """The handle on this worker's Kafka."""
    [stack] = _running
    return stack.server("kafka")


def redis_unit() -> Unit:
    """The handle on this worker's Redis."""
    [stack] = _running
    return stack.server("redis")


def _start() -> None:
    stack = LocalStack.ephemeral(servers_only=True, own_servers=True, report=lambda _: None)
    stack.start()
    _running.append(stack)
    atexit.register(stack.stop)
    os.environ.update(stack.env)
    zygote.fork_in_stacks()


if "PYTEST_XDIST_WORKER" in os.environ:
    _start()
