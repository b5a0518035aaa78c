"""RabbitMQ as a sender sees it: queues made and emptied, messages published."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from devtools.relay.messages import Message

__all__ = [
    "channel",
    "declare",
    "delete",
    "delete_exchange",
    "depth",
    "publish",
    "take_all",
]


@contextmanager
def channel(url: str) -> Iterator[BlockingChannel]:
    """A channel of its own connection."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


def declare(url: str, queue: str, arguments: Mapping[str, Any] | None = None) -> None:
    """A durable queue, as its owner makes it."""
    with channel(url) as open_channel:
        open_channel.queue_declare(queue, durable=True, arguments=dict(arguments or {}) or None)


def delete(url: str, *queues: str) -> None:
    """Queues, and what is in them. Those that are not there are no error, as in RabbitMQ."""
    for queue in queues:
        with suppress(pika.exceptions.ChannelClosedByBroker), channel(url) as open_channel:
            open_channel.queue_delete(queue)


def delete_exchange(url: str, exchange: str) -> None:
    """It need not be there."""
    with suppress(pika.exceptions.ChannelClosedByBroker), channel(url) as open_channel:
        open_channel.exchange_delete(exchange)


def depth(url: str, queue: str) -> int:
    """Messages that are ready; 0 if there is no such queue. What a consumer has in hand is not among
    them."""
    try:
        with channel(url) as open_channel:
            return int(open_channel.queue_declare(queue, passive=True).method.message_count)
    except pika.exceptions.ChannelClosedByBroker:
        return 0


def publish(url: str, queue: str, messages: Iterable[Message], *, rate: float = 0.0) -> int:
    """Persistent messages, confirmed together at the end; returns how many. `rate`: a second, 0: as
    fast as it goes."""
    sent = 0
    begin = time.monotonic()
    with channel(url) as open_channel:
        for message in messages:
            open_channel.basic_publish("", queue, message.body, _properties(message))
            sent += 1
            if rate and (wait := begin + sent / rate - time.monotonic()) > 0:
                open_channel.connection.process_data_events(wait)
        # Answered in the order of the channel: what was published before is in the queue then.
        open_channel.queue_declare(queue, passive=True)
    return sent


def _properties(message: Message) -> pika.BasicProperties:
    if message.bare:
        return pika.BasicProperties()
    return pika.BasicProperties(
        delivery_mode=2,
        content_type="application/json",
        headers=dict(message.headers) if message.headers is not None else None,
        content_encoding=message.encoding,
    )


def take_all(url: str, queue: str) -> list[bytes]:
    """The bodies in a queue, in order; they are gone then."""
    bodies: list[bytes] = []
    with channel(url) as open_channel:
        while True:
            method, _, body = open_channel.basic_get(queue, auto_ack=True)
            if method is None:
                return bodies
            bodies.append(body)
