"""What Kafka's errors say about a message that was sent."""

from __future__ import annotations

from confluent_kafka import KafkaError

__all__ = ["NO_ANSWER", "REFUSALS", "REFUSALS_WITH_TIME", "may_be_written"]

# Kafka looked at the message and said no; sending it again alone will not change that.
REFUSALS = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
    }
)
# A topic may bound how old a message is (message.timestamp.before.max.ms).
REFUSALS_WITH_TIME = REFUSALS | {KafkaError.INVALID_TIMESTAMP}
# Nothing was said about the message: it waited too long, or went down with the producer.
NO_ANSWER = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._PURGE_QUEUE,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
    }
)
# Kafka's own words for not knowing, or for a copy that it has already.
_UNSURE = frozenset(
    {
        KafkaError.DUPLICATE_SEQUENCE_NUMBER,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.REQUEST_TIMED_OUT,
    }
)


def may_be_written(code: int) -> bool:
    """Whether a message that failed with this error may be in the log all the same. An answer of
    Kafka is a no, but for those; the client's own errors say that there was none, unless the message
    was never on its way."""
    return code in _UNSURE if code > 0 else code != KafkaError._PURGE_QUEUE
