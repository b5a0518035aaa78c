"""The dead-letter queue as an operator sees it: list, replay, discard.

Whoever looks takes letters without acknowledging them, and RabbitMQ puts them back. A quorum queue counts
that as a delivery and drops a message that it has delivered too often: by default after 20 times, from
RabbitMQ 4 on. So a look renews letters in good time: each is published to its queue again, whose count
begins anew, and then acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import pika
from pika import exceptions
from pika.adapters.blocking_connection import BlockingChannel

from outbox.rabbitmq.body import Unreadable, read_body
from outbox.rabbitmq.dead_letters import PREFIX
from outbox.rabbitmq.link import AMQPError, ask_for_confirms, parameters_of
from outbox.rabbitmq.message import DELIVERY_COUNT
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.properties import Properties, keep_properties_as_bytes

__all__ = [
    "EVERY",
    "Bound",
    "LettersUnavailable",
    "Look",
    "RelayLetter",
    "look",
    "resolve",
]

# Of a message that is sent again: the copies that RabbitMQ would make of it, and the count of deliveries,
# which only a queue may say.
_NOT_AGAIN = ("CC", "BCC", DELIVERY_COUNT)
# Deliveries of a letter, looks and crashes of those who look, until it is renewed. RabbitMQ's limit is far
# above it, so that many renewals may fail.
_WORN = 5


class LettersUnavailable(RuntimeError):
    """RabbitMQ does not answer, or there is no dead-letter queue yet."""


@dataclass(frozen=True, slots=True)
class RelayLetter:
    """One dead letter. `id` is its own, unique; `event_id` is empty where the body cannot be read."""

    id: str
    kind: str
    reason: str
    time: str
    exchange: str
    routing_key: str
    event_id: str
    body: bytes
    properties: Properties
    tag: int


@dataclass(frozen=True, slots=True)
class Bound:
    """How far a look goes: `letters`, and `size`, bytes of their bodies; None: to the end. `seconds`: after
    which silence of RabbitMQ is an error; None: what the address says."""

    letters: int | None = None
    size: int | None = None
    seconds: int | None = None


EVERY = Bound()


@dataclass(frozen=True, slots=True)
class Look:
    """Letters, oldest first. `waiting`: how many were there; `whole`: all of them were looked at."""

    letters: list[RelayLetter]
    waiting: int
    whole: bool


@contextmanager
def _channel(policy: RelayPolicy, bound: Bound = EVERY) -> Iterator[tuple[BlockingChannel, int]]:
    """A channel, and how many letters there are."""
    keep_properties_as_bytes()
    try:
        connection = pika.BlockingConnection(_parameters(policy, bound))
    except (AMQPError, OSError) as error:
        raise LettersUnavailable(f"RabbitMQ does not answer: {error!r}") from error
    try:
        channel = connection.channel()
        found = channel.queue_declare(policy.dead_letter_queue, passive=True)
        ask_for_confirms(connection._impl)
        channel.confirm_delivery()
        yield channel, found.method.message_count
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code == 404:
            raise LettersUnavailable(
                f"Queue {policy.dead_letter_queue} does not exist; the relay creates it when it starts."
            ) from error
        raise LettersUnavailable(str(error)) from error
    except (AMQPError, OSError) as error:
        raise LettersUnavailable(f"The connection to RabbitMQ was lost: {error!r}") from error
    finally:
        # What was read and not acknowledged is the queue's again, in its place.
        if connection.is_open:
            connection.close()


def _parameters(policy: RelayPolicy, bound: Bound) -> pika.URLParameters:
    parameters = parameters_of(policy.url)
    if bound.seconds is not None:
        parameters.socket_timeout = parameters.stack_timeout = bound.seconds
        parameters.blocked_connection_timeout = bound.seconds
        parameters.heartbeat = bound.seconds  # one that froze is noticed after two to three of them
    return parameters


def look(
    policy: RelayPolicy,
    bound: Bound = EVERY,
    *,
    wanted: Callable[[RelayLetter], bool] | None = None,
    limit: int | None = None,
) -> Look:
    """The first letters, of those that are wanted, up to `limit`; they stay where they are. Raises
    LettersUnavailable. A queue without letters may not exist: that is an empty look."""
    try:
        with _channel(policy, bound) as (channel, count):
            found = filter(wanted, _staying(policy, channel, count, bound))
            letters = list(islice(found, limit))
            return Look(letters, count, len(letters) == count)
    except LettersUnavailable as error:
        if isinstance(error.__cause__, exceptions.ChannelClosedByBroker):
            return Look([], 0, True)
        raise


def resolve(
    policy: RelayPolicy,
    wanted: Callable[[RelayLetter], bool],
    *,
    limit: int,
    replay: bool,
    bound: Bound = EVERY,
) -> Iterator[RelayLetter]:
    """Take letters out of the queue one by one: with `replay` each is first put into the relay's
    queue again, confirmed; else it is dropped. Raises LettersUnavailable."""
    left = limit
    if not left:
        return
    with _channel(policy, bound) as (channel, count):
        for letter, renews in _passing(policy, channel, count, bound):
            if not wanted(letter):
                if renews:
                    _renew(policy, channel, letter)
                continue
            if replay:
                try:
                    # Straight into the queue: by its old exchange others would get it again.
                    _publish(channel, policy.queue, letter, without=PREFIX)
                except LettersUnavailable:
                    if renews:
                        _renew(policy, channel, letter)
                    raise
            channel.basic_ack(letter.tag)
            yield letter
            left -= 1
            if not left:
                return


def _staying(
    policy: RelayPolicy, channel: BlockingChannel, count: int, bound: Bound
) -> Iterator[RelayLetter]:
    """Letters that stay in their queue, for as often as they are looked at."""
    for letter, renews in _passing(policy, channel, count, bound):
        if renews:
            _renew(policy, channel, letter)
        yield letter


def _passing(
    policy: RelayPolicy, channel: BlockingChannel, count: int, bound: Bound
) -> Iterator[tuple[RelayLetter, bool]]:
    """Letters that were there at the beginning: one that fails again comes back at the end. With each,
    whether it is to be renewed if it stays: from the first that was delivered too often on all of them,
    so that they keep their order."""
    size = 0
    renews = False
    for _ in range(count if bound.letters is None else min(count, bound.letters)):
        method, properties, body = channel.basic_get(policy.dead_letter_queue)
        if method is None:
            return
        renews = renews or properties.number(DELIVERY_COUNT) >= _WORN
        yield _letter(method.delivery_tag, properties, body), renews
        size += len(body)
        if bound.size is not None and size >= bound.size:
            return


def _renew(policy: RelayPolicy, channel: BlockingChannel, letter: RelayLetter) -> None:
    """Put it at the end of its queue, as if it were new. Whoever dies between the two leaves it there
    twice. Raises LettersUnavailable; then it is where it was."""
    _publish(channel, policy.dead_letter_queue, letter)
    channel.basic_ack(letter.tag)


def _publish(
    channel: BlockingChannel, queue: str, letter: RelayLetter, *, without: str = ""
) -> None:
    """Send it to a queue, which has confirmed it then; without headers whose names begin so. Raises
    LettersUnavailable."""
    properties = letter.properties.without_headers(*_NOT_AGAIN, beginning=without)
    try:
        channel.basic_publish("", queue, letter.body, properties, mandatory=True)
    except (exceptions.UnroutableError, exceptions.NackError) as error:
        raise LettersUnavailable(
            f"Queue {queue} did not take letter {letter.id}: {error!r}"
        ) from error


def _letter(tag: int, properties: Properties, body: bytes) -> RelayLetter:
    try:
        event_id = read_body(body).event_id
    except Unreadable:
        event_id = ""
    text = properties.text
    return RelayLetter(
        id=text(f"{PREFIX}id"),
        kind=text(f"{PREFIX}kind"),
        reason=text(f"{PREFIX}reason"),
        time=text(f"{PREFIX}time"),
        exchange=text(f"{PREFIX}exchange"),
        routing_key=text(f"{PREFIX}routing-key"),
        event_id=event_id,
        body=body,
        properties=properties,
        tag=tag,
    )
