"""Asking a broker that does not answer, or not yet."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from outbox.kafka import admin

client: Any = admin  # with the names it has from its client


def test_a_silent_broker_is_unavailable(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge waits for such a one; any other error would end it."""
    monkeypatch.setattr(admin, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.KAFKA_BOOTSTRAP_SERVERS = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(admin.KafkaUnavailable, match="no answer within"):
            admin.topic_ids(["order-events"])


class Broker:
    """Refuses to tell offsets until it was asked again who leads."""

    def __init__(self, refusal: int) -> None:
        self.refusal = refusal
        self.asked_anew = 0

    def list_topics(self, timeout: float) -> None:
        self.asked_anew += 1

    def list_offsets(self, wanted: Iterable[Any]) -> dict[Any, Future[Any]]:
        answers: dict[Any, Future[Any]] = {}
        for partition in wanted:
            answers[partition] = Future()
            if self.asked_anew:
                answers[partition].set_result(client.TopicPartition("t", partition.partition, 7))
            else:
                answers[partition].set_exception(
                    client.KafkaException(client.KafkaError(self.refusal))
                )
        return answers


@pytest.mark.parametrize(
    "refusal",
    [
        client.KafkaError.LEADER_NOT_AVAILABLE,
        client.KafkaError.UNKNOWN_LEADER_EPOCH,
        client.KafkaError.FENCED_LEADER_EPOCH,
    ],
)
def test_offsets_of_a_topic_that_has_just_been_made_are_waited_for(refusal: int) -> None:
    broker: Any = Broker(refusal)
    assert admin._offsets(broker, [client.TopicPartition("t", 3)], admin._EARLIEST) == {3: 7}


def test_any_other_refusal_is_told() -> None:
    broker: Any = Broker(client.KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(admin.KafkaUnavailable):
        admin._offsets(broker, [client.TopicPartition("t", 3)], admin._EARLIEST)
    assert not broker.asked_anew


class SlowBroker(Broker):
    """Lists a topic of one partition at once, and has a leader for it after some questions."""

    def list_topics(self, timeout: float) -> Any:
        super().list_topics(timeout)
        return SimpleNamespace(topics={"t": SimpleNamespace(partitions={3: None})})

    def list_offsets(self, wanted: Iterable[Any]) -> dict[Any, Future[Any]]:
        if self.asked_anew >= 5:
            return super().list_offsets(wanted)
        refused: Future[Any] = Future()
        refused.set_exception(client.KafkaException(client.KafkaError(self.refusal)))
        return dict.fromkeys(wanted, refused)


def test_new_topics_may_take_longer_to_have_leaders_than_any_other_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin, "TIMEOUT", 0.0)
    broker: Any = SlowBroker(client.KafkaError.NOT_LEADER_FOR_PARTITION)
    admin._wait_until_led(broker, ["t"])
    assert broker.asked_anew >= 5
