"""A delivery as the message that Kafka gets."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from urllib.parse import quote

from outbox.envelope import CONTENT_TYPE, TRACEPARENT
from outbox.kafka.stream import Header, record_bytes
from outbox.rabbitmq.body import MessageBody, Unreadable, read_body
from outbox.rabbitmq.deliveries import Delivery

__all__ = ["DELIVERY_COUNT", "EncodingUnknown", "Headers", "digest_of", "understand"]

TYPE = "relay.message"
DELIVERY_COUNT = "x-delivery-count"  # of a quorum queue
_ALMOST = 1024  # bytes around a value that are counted only when it comes to it
_IDENTITY = ("", "identity")


class EncodingUnknown(Unreadable):
    """The body is compressed, or something like it."""


def understand(delivery: Delivery) -> MessageBody:
    """Read a delivery's body and its digest. Raises Unreadable."""
    properties = delivery.properties
    if not properties.is_plain and properties.encoding.lower() not in _IDENTITY:
        raise EncodingUnknown(f"content-encoding: {properties.encoding[:100]}")
    delivery.body = body = read_body(delivery.raw)
    delivery.digest = digest_of(bytes(body.payload))
    return body


def digest_of(payload: bytes) -> str:
    """What distinguishes a repetition from another use of its id."""
    return blake2b(payload, digest_size=16).hexdigest()


class Headers:
    """The headers of one queue's messages: CloudEvents in binary mode
    (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md)."""

    def __init__(self, queue: str) -> None:
        self._before: tuple[Header, ...] = (
            ("ce_specversion", "1.0"),
            ("ce_type", TYPE),
            ("ce_source", f"/relay/{quote(queue, safe='')}"),
            ("content-type", CONTENT_TYPE),
        )

    def of(self, delivery: Delivery, time: str) -> list[Header]:
        """`time`: when it is relayed, RFC 3339."""
        body = delivery.body
        assert body is not None
        headers: list[Header] = [
            *self._before,
            ("ce_id", body.event_id),
            ("ce_time", time),
            ("ce_subject", body.event_id),
        ]
        if body.correlation_id is not None:
            # As text the client would end it at a NUL.
            headers.append(("correlation_id", body.correlation_id.encode()))
        if traceparent := traceparent_of(delivery):
            headers.append(("traceparent", traceparent))
        return headers

    def fits(self, delivery: Delivery, limit: int, time: str) -> bool:
        """Whether a topic with this max.message.bytes takes it."""
        if 2 * len(delivery.raw) + _ALMOST <= limit:
            return True
        body = delivery.body
        assert body is not None
        headers: Sequence[Header] = self.of(delivery, time)
        return record_bytes(body.event_id.encode(), bytes(body.payload), headers) <= limit


def traceparent_of(delivery: Delivery) -> str:
    """The sender's, if it is well formed; else empty."""
    if delivery.properties.is_plain:
        return ""
    text = delivery.properties.text("traceparent")
    return text if TRACEPARENT.fullmatch(text) else ""
