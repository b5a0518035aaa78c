"""Topics: what is there, and making what is missing.

Nothing here asks for a consumer group: librdkafka ends the process where such a question of its
admin client is not answered in time (https://github.com/confluentinc/librdkafka/issues/4605).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID, uuid5

from confluent_kafka import (
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from outbox.kafka.config import client_config
from outbox.topics import Topic

__all__ = [
    "DEFAULT_MAX_MESSAGE_BYTES",
    "SEGMENT_MS",
    "KafkaUnavailable",
    "TopicConfig",
    "TopicState",
    "alter",
    "alter_retention",
    "create",
    "described",
    "ping",
    "result_of",
    "states_or_none",
    "topic_configs",
    "topic_ids",
    "topic_states",
]

Answer = TypeVar("Answer")

_NAMESPACE = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # RFC 9562, name space of URLs
TIMEOUT = 10.0
LEADERS_SECONDS = 60.0  # that new topics may take to have leaders
MIN_INSYNC = 2
# Kafka deletes whole segments and never the one it writes to: a quiet topic keeps a message for its
# retention and so much longer. By default that is a week.
SEGMENT_MS = 24 * 3_600_000
DEFAULT_MAX_MESSAGE_BYTES = 1_048_588  # of a topic that says nothing else
# One broker may fail, and no acknowledged message is lost with it.
_REPLICATED = {
    "min.insync.replicas": str(MIN_INSYNC),
    "unclean.leader.election.enable": "false",
}
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_NOT_YET = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        # The client's metadata and the broker speak of a topic and of its namesake before or after.
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)

KafkaUnavailable = KafkaException


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic as the broker has it; offsets are per partition, next to be written last.

    `read_at`: monotonic time before it was asked; what reached the log by then, this has seen.
    """

    name: str
    topic_id: UUID
    earliest: dict[int, int]
    latest: dict[int, int]
    read_at: float = field(default_factory=time.monotonic, compare=False)


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """How a topic is kept: partitions, replicas of the least replicated one, and its settings."""

    partitions: int
    replicas: int
    values: dict[str, str]


def ping(timeout: float) -> None:
    """Raises KafkaException unless a broker answers within `timeout` seconds."""
    AdminClient(client_config("health")).list_topics(timeout=timeout)


def create(topics: Sequence[Topic], *, replication_factor: int) -> list[str]:
    """Make the topics that are missing; returns their names. Existing ones are left alone."""
    client = AdminClient(client_config("admin"))
    wanted = [
        NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=replication_factor,
            config={
                "retention.ms": str(topic.retention_hours * 3_600_000),
                "segment.ms": str(SEGMENT_MS),
                "max.message.bytes": str(topic.max_message_bytes),
                "cleanup.policy": "delete",
                **(_REPLICATED if replication_factor > MIN_INSYNC else {}),
            },
        )
        for topic in topics
    ]
    created = []
    for name, future in client.create_topics(wanted, operation_timeout=TIMEOUT).items():
        try:
            result_of(future)
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    if created:
        _wait_until_led(client, created)
    return created


def _wait_until_led(client: AdminClient, names: Sequence[str]) -> None:
    """A broker answers "created" before its metadata names the topic, and before a partition has a
    leader. On a slow machine a hundred new partitions take longer than any other question may."""
    give_up = time.monotonic() + LEADERS_SECONDS
    while True:
        listed = client.list_topics(timeout=TIMEOUT).topics
        missing = [name for name in names if not listed.get(name) or not listed[name].partitions]
        if not missing:
            break
        if time.monotonic() > give_up:
            raise KafkaUnavailable(
                f"Kafka created topics but does not list them after {LEADERS_SECONDS:.0f} s:"
                f" {', '.join(missing)}"
            )
        time.sleep(0.1)
    led = [TopicPartition(name, number) for name in names for number in listed[name].partitions]
    _offsets(client, led, _LATEST, give_up=give_up)


def topic_states(names: Sequence[str]) -> dict[str, TopicState]:
    """Ids and offset ranges of the topics that exist. Raises KafkaException while Kafka is unavailable."""
    read_at = time.monotonic()
    client = AdminClient(client_config("admin"))
    metadata = client.list_topics(timeout=TIMEOUT)
    present = [name for name in names if name in metadata.topics]
    ids = topic_ids(present)
    states = {}
    for name in present:
        partitions = [TopicPartition(name, number) for number in metadata.topics[name].partitions]
        states[name] = TopicState(
            name=name,
            topic_id=ids[name],
            earliest=_offsets(client, partitions, _EARLIEST),
            latest=_offsets(client, partitions, _LATEST),
            read_at=read_at,
        )
    return states


def states_or_none(names: Iterable[str]) -> tuple[dict[str, TopicState], str]:
    """The same for callers that can go on without Kafka: the states and an empty text, or no states
    and the error."""
    try:
        return topic_states(sorted(set(names))), ""
    except KafkaUnavailable as error:
        return {}, str(error) or "no answer"


def topic_ids(names: Sequence[str]) -> dict[str, UUID]:
    """Kafka's topic ids; on a broker without them a stable one made from the name."""
    if not names:
        return {}
    client = AdminClient(client_config("admin"))
    ids = {}
    for name, future in client.describe_topics(TopicCollection(list(names))).items():
        found = result_of(future).topic_id
        high = found.get_most_significant_bits() & 0xFFFFFFFFFFFFFFFF
        low = found.get_least_significant_bits() & 0xFFFFFFFFFFFFFFFF
        ids[name] = UUID(int=(high << 64) | low) if high or low else uuid5(_NAMESPACE, name)
    return ids


def result_of(future: Future[Answer], timeout: float = TIMEOUT) -> Answer:
    """What the broker says. Raises KafkaUnavailable, also when it says nothing in time."""
    try:
        return future.result(timeout)
    except FutureTimeout:
        silence = KafkaError(KafkaError._TIMED_OUT, f"no answer within {timeout:.0f} s")
        raise KafkaUnavailable(silence) from None


def _offsets(
    client: AdminClient,
    partitions: Sequence[TopicPartition],
    spec: OffsetSpec,
    *,
    give_up: float | None = None,
) -> dict[int, int]:
    """By number of the partition. Waits for leaders, until a monotonic time if one is given: right
    after its creation a topic has none, or the one of its namesake."""
    if give_up is None:
        give_up = time.monotonic() + TIMEOUT
    while True:
        futures = client.list_offsets(dict.fromkeys(partitions, spec))
        try:
            return {p.partition: result_of(f).offset for p, f in futures.items()}
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() > give_up:
                raise
            time.sleep(0.1)
            with suppress(KafkaException):
                client.list_topics(timeout=max(0.1, give_up - time.monotonic()))  # who leads by now


def topic_configs(names: Sequence[str]) -> dict[str, TopicConfig]:
    """Of the topics that exist; a broker that shows no settings gives empty ones."""
    client = AdminClient(client_config("admin"))
    metadata = client.list_topics(timeout=TIMEOUT)
    present = [name for name in names if name in metadata.topics]
    # Tansu knows no such request; brokers that are unavailable have failed the one before.
    values = described(client, ResourceType.TOPIC, present)
    return {
        name: TopicConfig(
            partitions=len(metadata.topics[name].partitions),
            replicas=min(len(p.replicas) for p in metadata.topics[name].partitions.values()),
            values=values.get(name, {}),
        )
        for name in present
    }


def alter_retention(topics: Sequence[Topic]) -> None:
    """Set retention.ms and segment.ms of existing topics to what the code says."""
    client = AdminClient(client_config("admin"))
    for topic in topics:
        kept = {"retention.ms": topic.retention_hours * 3_600_000, "segment.ms": SEGMENT_MS}
        [done] = alter(client, ResourceType.TOPIC, [topic.name], kept)
        result_of(done)


def described(
    client: AdminClient, kind: ResourceType, names: Iterable[str], timeout: float = TIMEOUT
) -> dict[str, dict[str, str]]:
    """Name -> settings, of those that the broker shows within so many seconds."""
    resources = [ConfigResource(kind, name) for name in names]
    found = {}
    for resource, future in (client.describe_configs(resources) if resources else {}).items():
        with suppress(KafkaException):
            entries = result_of(future, timeout).values()
            found[resource.name] = {entry.name: str(entry.value) for entry in entries}
    return found


def alter(
    client: AdminClient, kind: ResourceType, names: Iterable[str], values: Mapping[str, int]
) -> Collection[Future[None]]:
    """Ask the broker to set these settings, the same for all; `result_of` each tells what it did. They end
    with the client."""
    entries = [
        ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
        for name, value in values.items()
    ]
    resources = [ConfigResource(kind, name, incremental_configs=entries) for name in names]
    return client.incremental_alter_configs(resources).values()
