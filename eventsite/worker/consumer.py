"""The consumer of a worker: drops what it cannot read, and does not hurry from one lost connection
to the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog
from celery.worker import consumer

from eventsite.worker.redis_broker import OF_REDIS, RECONNECT_SECONDS
from outbox.database.errors import describe

__all__ = ["Consumer"]

SHOWN = 200  # characters of what a log line says about a message

log = structlog.get_logger("eventsite.worker_consumer")


class Consumer(consumer.Consumer):
    """Celery's, but no message ends it. A newer version may have sent one that this one cannot read:
    whoever sent it sends it again until a worker has it that can (guarantees.md#r10)."""

    _connected_at = float("-inf")

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        take = super().create_task_handler(*args, **options)

        def take_or_drop(message: Any) -> None:
            try:
                _check_time_limits(message)
                take(message)
            except OF_REDIS:
                raise
            except Exception as error:  # noqa: BLE001  (whatever the message leads to)
                self.on_decode_error(message, error)

        return take_or_drop

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        log.critical(
            "task_dropped",
            error=describe(exc),
            task=repr(_header(message, "task"))[:SHOWN],
            content_type=repr(message.content_type)[:SHOWN],
            compression=repr(_header(message, "compression"))[:SHOWN],
        )
        if not message.acknowledged:
            message.ack()

    def connect(self) -> Any:
        connection = super().connect()
        self._connected_at = time.monotonic()
        return connection

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """A Redis that lets us connect and then refuses is not asked without a pause."""
        super().on_connection_error_after_connected(exc)
        time.sleep(max(0.0, self._connected_at + RECONNECT_SECONDS - time.monotonic()))


def _check_time_limits(message: Any) -> None:
    """Celery reads these only when a process of the pool is reserved, and an error there would keep
    it reserved. Raises ValueError."""
    limits = _header(message, "timelimit")
    if limits is not None and not (
        isinstance(limits, list)
        and len(limits) == 2
        and all(each is None or isinstance(each, int | float) for each in limits)
    ):
        raise ValueError(f"{limits!r} are not time limits")


def _header(message: Any, name: str) -> object:
    headers = message.headers
    return headers.get(name) if isinstance(headers, dict) else None
