"""Celery's connection to Redis: waits out a Redis that is lost or refuses, drops what is no message.

Kombu takes an error that Redis answers for a fault of the program, and the worker ends. A full Redis is
the exception: only workers can make room, so they go on to take messages, which needs no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Empty
from typing import Any

import kombu
import redis
import structlog
from celery.app.amqp import AMQP
from django.conf import settings
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from outbox import redis_client
from outbox.database.errors import describe

__all__ = ["OF_REDIS", "RECONNECT_SECONDS", "RedisAMQP"]

RECONNECT_SECONDS = 2.0
CHECK_SECONDS = 2.0
# A message can cause any error but these, which are of the server or of the way to it.
OF_REDIS = (OSError, redis.RedisError)

log = structlog.get_logger("eventsite.redis_broker")


class _Room:
    """Whether Redis had room for this process' last write."""

    is_short = False

    def note_full(self, error: redis.OutOfMemoryError) -> None:
        self.is_short = True
        redis_client.note_lost(error)

    def note_answer(self) -> None:
        """An answer to what needs no memory says nothing of a full Redis."""
        if not self.is_short:
            redis_client.note_back()


_room = _Room()


@contextmanager
def _left_out_if_full() -> Iterator[None]:
    """Ends the block, without an error, at a command for which Redis has no room."""
    try:
        yield
    except redis.ResponseError as error:
        # An error inside of a script comes as its text.
        if not isinstance(error, redis.OutOfMemoryError) and "-OOM " not in str(error):
            raise


class _QoS(kombu_redis.QoS):
    """What cannot be acknowledged is in nobody's hands any more. Kombu would count it as in the
    worker's for as long as the connection lives, and with as many as it may hold the worker takes
    nothing. Redis makes it visible again: a task twice has its effect once (guarantees.md#r8)."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Also takes what a full Redis cannot note as taken. If this worker dies with it, it is
        lost, and whoever sent it sends it again (guarantees.md#r10)."""
        try:
            super().append(message, delivery_tag)
        except redis.OutOfMemoryError as error:
            _room.note_full(error)
            virtual.QoS.append(self, message, delivery_tag)
        else:
            if _room.is_short:
                _room.is_short = False
                redis_client.note_back()

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """A full Redis makes nothing visible again until it has room."""
        with _left_out_if_full():
            super().restore_visible(*args, **options)

    def ack(self, delivery_tag: str) -> None:
        try:
            try:
                super().ack(delivery_tag)
            except redis.OutOfMemoryError as error:
                _room.note_full(error)
                self._ack_without_transaction(delivery_tag)
        except OF_REDIS as error:
            redis_client.note_lost(error)
            virtual.QoS.ack(self, delivery_tag)
        else:
            _room.note_answer()

    def _ack_without_transaction(self, delivery_tag: str) -> None:
        """A full Redis queues no command of a transaction. Without its message a tag does nothing,
        so the message goes first."""
        channel: Any = self.channel
        with channel.conn_or_acquire() as client:
            client.hdel(self.unacked_key, delivery_tag)
            client.zrem(self.unacked_index_key, delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue=requeue)
        except OF_REDIS as error:
            redis_client.note_lost(error)
            virtual.QoS.ack(self, delivery_tag)
        else:
            _room.note_answer()


class _Channel(kombu_redis.Channel):
    """Reads on after bytes that are no message of kombu's. They are gone: kombu has taken them off
    their list, and does not remember yet what it could not read."""

    QoS = _QoS
    _one_client: Any = None

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """One client for each pool. Kombu makes one for each command, and a new client fills a table of
        170 callbacks: a tenth of what a task costs beat and worker."""
        if client is None:
            if self._one_client is None or self._one_client.connection_pool is not self.pool:
                self._one_client = _kombu(self)._create_client()
            client = self._one_client
        yield client

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = _kombu(self)._connparams(asynchronous)
        return parameters | {"retry": redis_client.no_retry()}

    def _queue_bind(self, *args: Any) -> None:
        """A full Redis holds what names our queues already, or has room for it at the next start."""
        with _left_out_if_full():
            _kombu(self)._queue_bind(*args)

    def _maybe_update_queues_expire(self, *args: Any) -> None:
        """Queues of remote control, which nobody needs while Redis is full; so is the next."""
        with _left_out_if_full():
            _kombu(self)._maybe_update_queues_expire(*args)

    def maybe_refresh_binding_expiry(self) -> None:
        with _left_out_if_full():
            _kombu(self).maybe_refresh_binding_expiry()

    def _size(self, queue: str) -> int:
        """Without a transaction, of which a full Redis takes none."""
        kombus = _kombu(self)
        with self.conn_or_acquire() as client:
            return sum(client.llen(kombus._q_for_pri(queue, each)) for each in self.priority_steps)

    def _brpop_read(self, **options: Any) -> Any:
        return _or_dropped(partial(_kombu(self)._brpop_read, **options))

    def _receive_one(self, c: Any) -> Any:
        return _or_dropped(partial(_kombu(self)._receive_one, c))


def _kombu(channel: _Channel) -> Any:
    """The methods of the class above, of which the stubs know little."""
    return super(_Channel, channel)


def _or_dropped(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:
        # A DataError is, for example, a list where kombu wants a text.
        if isinstance(error, (Empty, *OF_REDIS)) and not isinstance(error, redis.DataError):
            raise
        log.critical("message_dropped", error=describe(error))  # whatever these bytes lead to
    return True


class _Transport(kombu_redis.Transport):
    Channel = _Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, redis.RedisError)


class _Connection(kombu.Connection):
    """Tries Redis again every two seconds. Says once that it is lost and once that it is back.

    A lost connection gives nothing back: Kombu would restore what was not acknowledged with a client
    that is gone by then, and that ends the worker. Bridge and beat send it again."""

    def get_transport_cls(self) -> type[_Transport]:
        return _Transport

    def ensure_connection(self, errback: Any = None, *args: Any, **options: Any) -> Any:
        steady = {"interval_start": RECONNECT_SECONDS, "interval_step": 0}
        super().ensure_connection(_note_lost, *args, **steady | options)
        _room.note_answer()
        return self

    def _establish_connection(self) -> Any:
        """Also raises redis.RedisError where Redis answers, and takes no writes or has something
        else where the queues should be; not where it is only full."""
        queues = [queue.name for queue in settings.CELERY_TASK_QUEUES]
        with redis_client.client(answers_within=CHECK_SECONDS, connects_within=CHECK_SECONDS) as c:
            try:
                redis_client.queue_lengths(c, queues)
            except redis.OutOfMemoryError as error:
                _room.note_full(error)
            else:
                _room.is_short = False
        return super()._establish_connection()

    def collect(self, socket_timeout: float | None = None) -> None:
        transport: Any = self.transport
        for channel in transport.channels:
            channel.do_restore = False
        super().collect(socket_timeout)


def _note_lost(error: Exception, interval: float) -> None:
    redis_client.note_lost(error)


class RedisAMQP(AMQP):
    """Celery's, with these connections."""

    Connection = _Connection
