"""A connection to RabbitMQ that comes back by itself, for ever."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import partial

import pika
import structlog
from pika import exceptions
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

from outbox.rabbitmq.properties import keep_properties_as_bytes

__all__ = ["AMQPError", "Link", "ask_for_confirms", "parameters_of", "shown"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_HEARTBEAT = 20  # seconds; a peer that froze is noticed after two to three of them

AMQPError = exceptions.AMQPError

log = structlog.get_logger("outbox.relay")


def parameters_of(url: str) -> pika.URLParameters:
    """What an amqp:// or amqps:// address says, with our own bounds where it says nothing."""
    parameters = pika.URLParameters(url)
    if "heartbeat=" not in url:
        parameters.heartbeat = _HEARTBEAT
    if "socket_timeout=" not in url:
        parameters.socket_timeout = 5.0
    if "stack_timeout=" not in url:
        parameters.stack_timeout = 10.0
    return parameters


def ask_for_confirms(connection: pika.connection.Connection) -> None:
    """Let the server answer whether it confirms what is published: pika goes by what the server says
    of itself, and Qpid, which can do it, says nothing."""
    offered: dict[str, bool] = connection.server_capabilities
    offered |= {"publisher_confirms": True, "basic.nack": True}


def shown(error: BaseException | object) -> str:
    """An error of pika in one line, without an address that may hold a password."""
    return str(error) or type(error).__name__


class Link:
    """Keeps one connection and one channel open, once `open` was called.

    A subclass says what to do with a new channel (`channel_opened`), and what is lost with an old
    one (`channel_lost`). Channels have a generation: an answer to an old one finds nobody.
    """

    def __init__(self, name: str, url: str, loop: IOLoop) -> None:
        keep_properties_as_bytes()
        # pika logs each lost connection at length; we log it once.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        self.name = name
        self._parameters = parameters_of(url)
        self._loop = loop
        self._connection: pika.SelectConnection | None = None
        self.channel: Channel | None = None
        self._pause = _FIRST_PAUSE
        self._wanted = False
        self._complained = False
        self._when_closed: Callable[[], None] | None = None
        self.is_blocked = False
        self.reopens = True  # a channel that was closed

    @property
    def is_up(self) -> bool:
        return self.channel is not None

    @property
    def usable(self) -> pika.SelectConnection | None:
        """The connection, for channels beside the one in use; None while there is none."""
        connection = self._connection
        return connection if connection is not None and connection.is_open else None

    def open(self) -> None:
        """Connect, and again whenever the connection is lost."""
        self._wanted = True
        self._connect()

    def close(self, when_closed: Callable[[], None]) -> None:
        """Close for good; `when_closed` is called once the broker has confirmed it, or at once if
        there is nothing to close."""
        self._wanted = False
        self._when_closed = when_closed
        connection = self._connection
        if connection is None or connection.is_closed:
            self._closed()
        elif connection.is_open:
            connection.close()

    def channel_opened(self, channel: Channel) -> None:
        """A new channel is there."""
        raise NotImplementedError

    def channel_lost(self, reason: object) -> None:
        """The channel is gone, and with it its tags."""
        raise NotImplementedError

    def worked(self) -> None:
        """Something succeeded on the channel: the next pause is a short one again."""
        self._pause = _FIRST_PAUSE
        if self._complained:
            self._complained = False
            log.warning("rabbitmq_back", link=self.name)

    def complain(self, reason: object) -> None:
        """Say once that it does not work."""
        if not self._complained and self._wanted:
            self._complained = True
            log.warning("rabbitmq_lost", link=self.name, error=shown(reason))

    def _connect(self) -> None:
        if not self._wanted or self._connection is not None:
            return
        self._connection = pika.SelectConnection(
            self._parameters,
            on_open_callback=self._connected,
            on_open_error_callback=self._disconnected,
            on_close_callback=self._disconnected,
            custom_ioloop=self._loop,
        )

    def _connected(self, connection: pika.SelectConnection) -> None:
        self.is_blocked = False
        connection.add_on_connection_blocked_callback(partial(self._blocked, True))
        connection.add_on_connection_unblocked_callback(partial(self._blocked, False))
        if not self._wanted:
            connection.close()
            return
        self._open_channel()

    def _blocked(self, is_blocked: bool, *_: object) -> None:
        self.is_blocked = is_blocked
        log.warning("rabbitmq_blocked" if is_blocked else "rabbitmq_unblocked", link=self.name)

    def _disconnected(self, _: pika.SelectConnection, reason: object) -> None:
        self._connection = None
        self.is_blocked = False
        self._lose(reason)
        if self._wanted:
            self.complain(reason)
            self._later(self._connect)
        else:
            self._closed()

    def _open_channel(self) -> None:
        connection = self.usable
        if connection and self.channel is None and self._wanted and self.reopens:
            connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Channel) -> None:
        if self.channel is not None or not self._wanted:
            channel.close()
            return
        channel.add_on_close_callback(self._channel_closed)
        self.channel = channel
        self.channel_opened(channel)

    def _channel_closed(self, channel: Channel, reason: Exception) -> None:
        if channel is not self.channel:
            return
        if not isinstance(reason, exceptions.ChannelClosedByClient):
            self.complain(reason)
        self._lose(reason)
        if self.reopens:
            self._later(self._open_channel)

    def _lose(self, reason: object) -> None:
        if self.channel is not None:
            self.channel = None
            self.channel_lost(reason)

    def _later(self, step: Callable[[], None]) -> None:
        """After a pause that doubles until something works."""
        self._loop.call_later(self._pause * random.uniform(0.5, 1.0), step)  # noqa: S311
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _closed(self) -> None:
        if self._when_closed is not None:
            when_closed, self._when_closed = self._when_closed, None
            when_closed()
