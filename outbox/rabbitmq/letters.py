"""The dead-letter queue as an operator sees it: list, replay, discard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
    "waiting",
]

# Of a message that is sent again, beside our own: the copies that RabbitMQ would make of it, and the
# count of deliveries for which it may have come here.
_NOT_REPLAYED = ("CC", "BCC", DELIVERY_COUNT)


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


def look(policy: RelayPolicy, bound: Bound) -> Look:
    """The letters that lie first; they stay where they are. Raises LettersUnavailable. A queue without
    letters may not exist: that is an empty look."""
    try:
        with _channel(policy, bound) as (channel, count):
            letters = list(_passing(policy, channel, count, bound))
            return Look(letters, count, len(letters) == count)
    except LettersUnavailable as error:
        if isinstance(error.__cause__, exceptions.ChannelClosedByBroker):
            return Look([], 0, True)
        raise


def waiting(
    policy: RelayPolicy, wanted: Callable[[RelayLetter], bool], *, limit: int
) -> list[RelayLetter]:
    """The first letters that are wanted, oldest first; they stay where they are.

    Raises LettersUnavailable. A queue without letters may not exist: that is an empty list.
    """
    try:
        with _channel(policy) as (channel, count):
            return _read(policy, channel, count, wanted, limit=limit)
    except LettersUnavailable as error:
        if isinstance(error.__cause__, exceptions.ChannelClosedByBroker):
            return []
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
    with _channel(policy, bound) as (channel, count):
        ask_for_confirms(channel.connection._impl)
        channel.confirm_delivery()
        for letter in _read(policy, channel, count, wanted, limit=limit, bound=bound):
            if replay:
                try:
                    # Straight into the queue: by its old exchange others would get it again.
                    channel.basic_publish(
                        "",
                        policy.queue,
                        letter.body,
                        letter.properties.without_headers(*_NOT_REPLAYED, beginning=PREFIX),
                        mandatory=True,
                    )
                except (exceptions.UnroutableError, exceptions.NackError) as error:
                    raise LettersUnavailable(
                        f"Queue {policy.queue} did not take letter {letter.id}: {error!r}"
                    ) from error
            channel.basic_ack(letter.tag)
            yield letter


def _read(
    policy: RelayPolicy,
    channel: BlockingChannel,
    count: int,
    wanted: Callable[[RelayLetter], bool],
    *,
    limit: int,
    bound: Bound = EVERY,
) -> list[RelayLetter]:
    found: list[RelayLetter] = []
    for letter in _passing(policy, channel, count, bound):
        if wanted(letter):
            found.append(letter)
        if len(found) == limit:
            break
    return found


def _passing(
    policy: RelayPolicy, channel: BlockingChannel, count: int, bound: Bound
) -> Iterator[RelayLetter]:
    """Letters that were there at the beginning: one that fails again comes back at the end."""
    size = 0
    for _ in range(count if bound.letters is None else min(count, bound.letters)):
        method, properties, body = channel.basic_get(policy.dead_letter_queue)
        if method is None:
            return
        yield _letter(method.delivery_tag, properties, body)
        size += len(body)
        if bound.size is not None and size >= bound.size:
            return


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
