"""Pauses between tries, and which failures leave a message in doubt; without any server."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from outbox.kafka.refusals import REFUSALS_WITH_TIME, may_be_written
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.sending import pause_after

POLICY = RelayPolicy(retry_initial=0.1, retry_max=5.0)


@pytest.mark.parametrize(
    ("failures", "longest"), [(0, 0.1), (1, 0.2), (5, 3.2), (6, 5.0), (1_000_000, 5.0)]
)
def test_pauses_double_up_to_a_bound_with_jitter(failures: int, longest: float) -> None:
    pauses = [pause_after(failures, POLICY) for _ in range(200)]
    assert longest / 2 <= min(pauses) < max(pauses) <= longest
    assert max(pauses) > 1.2 * min(pauses)


def test_what_kafka_has_answered_with_no_is_not_in_doubt() -> None:
    answers = {*REFUSALS_WITH_TIME, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._PURGE_QUEUE}
    assert not [code for code in answers if may_be_written(code)]
    unknown = (
        KafkaError._PURGE_INFLIGHT,
        KafkaError._TRANSPORT,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.REQUEST_TIMED_OUT,
    )
    assert all(may_be_written(code) for code in unknown)
