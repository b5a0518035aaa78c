"""A producer that is never flushed: messages go in, reports come out, nothing is given up.

The client repeats what an outage holds up under the same sequence numbers; only after a refusal or a
fatal error must the stream be replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, ResourceType  # type: ignore[attr-defined]

from outbox.kafka import admin
from outbox.kafka.config import client_config, idempotent_config
from outbox.kafka.refusals import REFUSALS_WITH_TIME, may_be_written

__all__ = ["Failure", "Header", "LimitsQuestion", "Stream", "record_bytes"]

Token = TypeVar("Token")
Header = tuple[str, str | bytes]

# The batch's own 61 bytes come off the limit; the rest is for what librdkafka adds to its count.
_BATCH_ROOM = 1024
_CLIENT_LIMIT = 1_000_000_000  # what is too large is for the topic to say
_QUEUE = 100_000  # messages
_PURGE_SECONDS = 0.5
_REBUILD_AFTER = 3  # questions without an answer


class Failure(NamedTuple, Generic[Token]):
    """One message that has no place in the log, as far as is known.

    refused   Kafka named a reason that is the message's own; those that shared its request get
              the same
    in_doubt  it may have been written: it was on its way and nobody answered
    """

    token: Token
    error: str
    refused: bool
    in_doubt: bool


class Stream(Generic[Token]):
    """One idempotent producer to one topic. Not for several threads.

    `limit`: bytes of the topic's largest batch, so that no batch of small messages exceeds it.
    `gapless`: a message that fails ends the stream, and nothing sent later goes before it; without,
    a refusal concerns its request alone.
    """

    def __init__(self, topic: str, *, limit: int, gapless: bool = True) -> None:
        self._topic = topic
        self._delivered: list[Token] = []
        self._failed: list[Failure[Token]] = []
        self._sent: dict[int, tuple[Token, float]] = {}
        self._number = 0
        self.fatal = ""
        self._producer = Producer(
            idempotent_config("relay")
            | {
                "enable.gapless.guarantee": gapless,
                # It waits for Kafka as long as it takes.
                "message.timeout.ms": 0,
                # The partition of a key is that of Java's clients.
                "partitioner": "murmur2_random",
                "linger.ms": 2 if gapless else 0,
                # What the topic's limit is compared with is then the size that is known here.
                "compression.type": "none",
                "batch.size": max(1, min(1_000_000, limit - _BATCH_ROOM)),
                "message.max.bytes": _CLIENT_LIMIT,
                "queue.buffering.max.messages": _QUEUE,
                "queue.buffering.max.kbytes": 2_000_000,
            }
        )

    def __len__(self) -> int:
        """Messages without a report."""
        return len(self._sent)

    def send(self, token: Token, *, key: str, value: bytes, headers: Sequence[Header]) -> bool:
        """Take a message; False if it was not taken: the queue is full, or the stream has ended."""
        self._number = number = self._number + 1
        try:
            self._producer.produce(
                self._topic,
                value,
                key,
                headers=cast(Any, headers),
                on_delivery=partial(self._report, number),
            )
        except BufferError:
            return False
        except KafkaException as error:
            # The topic is unknown by now, or the producer has died: it took nothing.
            self.fatal = self.fatal or str(error)
            return False
        self._sent[number] = (token, time.monotonic())
        return True

    def poll(self) -> tuple[list[Token], list[Failure[Token]]]:
        """What Kafka has, and what it has not, since the last time. Never waits."""
        self._serve(0.0)
        delivered, self._delivered = self._delivered, []
        failed, self._failed = self._failed, []
        return delivered, failed

    def waited(self, now: float) -> float:
        """Seconds that the oldest message without a report has waited."""
        for _, sent in self._sent.values():
            return now - sent
        return 0.0

    def end(self) -> tuple[list[Token], list[Failure[Token]]]:
        """Give up what has no report, and the producer with it."""
        with suppress(KafkaException):
            self._producer.purge()
        deadline = time.monotonic() + _PURGE_SECONDS
        while self._sent and time.monotonic() < deadline:
            self._serve(0.05)
        delivered, failed = self.poll()
        failed += [Failure(token, "no report", False, True) for token, _ in self._sent.values()]
        self._sent.clear()
        # Its threads take their time to end, which is not the caller's.
        threading.Thread(target=_close, args=(self._producer,), daemon=True).start()
        return delivered, failed

    def _serve(self, seconds: float) -> None:
        """Run the reports' callbacks. confluent_kafka raises a fatal error inside whichever comes
        next, and the reports behind it are still to be fetched."""
        while True:
            try:
                self._producer.poll(seconds)
            except (KafkaException, SystemError) as error:
                again = not self.fatal
                self.fatal = self.fatal or str(error.__cause__ or error)
                if again:
                    continue
            return

    def _report(self, number: int, error: KafkaError | None, message: Message) -> None:
        token, _ = self._sent.pop(number)
        if error is None:
            self._delivered.append(token)
            return
        code = error.code()
        self._failed.append(
            Failure(token, error.str(), code in REFUSALS_WITH_TIME, may_be_written(code))
        )


def _close(producer: Producer) -> None:
    with suppress(KafkaException, SystemError):
        producer.flush(_PURGE_SECONDS)
        producer.close()


def record_bytes(key: bytes, value: bytes, headers: Sequence[Header]) -> int:
    """Bytes of the batch that one message makes: what a topic compares with max.message.bytes
    (https://kafka.apache.org/documentation/#messageformat)."""
    body = _sized(len(key)) + _sized(len(value)) + _varint(len(headers))
    for name, text in headers:
        content = text.encode() if isinstance(text, str) else text
        body += _sized(len(name.encode())) + _sized(len(content))
    body += 3  # attributes, and the differences of time and offset, which are 0
    return 61 + _sized(body)


def _sized(length: int) -> int:
    return _varint(length) + length


def _varint(number: int) -> int:
    return max(1, -(-(number << 1).bit_length() // 7))


class LimitsQuestion:
    """Asks whether Kafka answers and has the topic, over a connection of its own."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._client: AdminClient | None = None
        self._failed = 0

    def ask(self, timeout: float) -> int:
        """Bytes of the largest batch that the topic takes. Raises KafkaException while no broker answers, or there is no such topic."""
        if self._client is None or self._failed >= _REBUILD_AFTER:
            self._client, self._failed = AdminClient(client_config("relay-watch")), 0
        try:
            found = self._client.list_topics(self._topic, timeout=timeout).topics[self._topic]
            if found.error is not None:
                raise KafkaException(found.error)
        except KafkaException:
            self._failed += 1
            raise
        self._failed = 0
        settings = admin.described(self._client, ResourceType.TOPIC, [self._topic], timeout)
        limit = settings.get(self._topic, {}).get("max.message.bytes", "")
        # Kafka's default where the broker does not show it, or not to us.
        return int(limit) if limit.isdigit() else admin.DEFAULT_MAX_MESSAGE_BYTES
