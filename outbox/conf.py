"""What the platform reads from Django's settings, typed; it never imports upwards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from django.conf import settings
from django.utils.module_loading import import_string

from outbox.declaration import LetterSource, Route
from outbox.topics import CANARY_TYPE, DLQ_TYPE, Topic

__all__ = [
    "BRIDGE",
    "CIRCUIT",
    "DRAIN",
    "DRAIN_HANDLER",
    "REDRIVE",
    "BridgePolicy",
    "CircuitPolicy",
    "DrainPolicy",
    "RedrivePolicy",
    "Retention",
    "all_topics",
    "build",
    "known_types",
    "letter_sources",
    "partition_counts",
    "passing_types",
    "publishable",
    "published_events",
    "release",
    "retention",
    "route_named",
    "routes",
    "topics",
    "topics_for_others",
]

# Under this name the drain's own dead letters are kept: those that Kafka refused.
DRAIN_HANDLER = "outbox.drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPolicy:
    """Bounds of one drain transaction (guarantees.md#r3 and #r5); seconds where nothing else is said.
    `part_events`: a larger batch is sent and settled in parts of about so many; smaller ones cost more
    in flushes than they save.
    `refusals`: times Kafka must name a message alone as refused before it becomes a dead letter.
    `much`: behind a batch of so many events that filled its claim, a run has two claims at once.
    `few`: behind a batch of fewer events, which emptied its lanes and was not the last, a run claims
    all lanes at once, and waits for `gather` before it does so again.
    `linger`: a drain that settled `linger_from` events or more looks again after `linger_pause`
    for so long, as long as there is something; < nudge_debounce, for which it keeps others from
    asking. `sweep_seconds`: after so long a look below the floors is given up.

    flush_timeout < PostgreSQL's idle_in_transaction_session_timeout (8 s) < task_time_limit:
    each outer bound only acts when the inner one could not. So is run_seconds and a flush together;
    a run that was stopped does not linger.
    """

    lanes_per_claim: int = 16
    batch_events: int = 4000
    part_events: int = 1000
    much: int = 2000
    few: int = 1000
    gather: float = 0.04
    connect_timeout: float = 3.0
    flush_timeout: float = 5.0
    run_seconds: float = 5.0
    task_time_limit: int = 15
    backoff_first: float = 0.5
    backoff_max: float = 5.0
    floor_interval: float = 1.0
    sweep_interval: float = 60.0
    sweep_seconds: float = 5.0
    nudge_interval: float = 0.02
    nudge_debounce: float = 1.0
    linger: float = 0.8
    linger_from: int = 5
    linger_pause: float = 0.02
    queue_bound: int = 20  # tasks
    refusals: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgePolicy:
    """Bounds of the way from Kafka to the effect (guarantees.md#r8 and #r10); seconds, events, bytes.

    effect_timeout < task_time_limit < deadline: a copy that was started in time has been ended
    when the chunk is sent again. One that a worker found late may still run beside the next: the
    position lets only one of them in.

    ask_after       how long a chunk is under way before it is asked every `ask_interval` whether anybody
                    has it: no transaction holds its position, and its queue is empty
    send_interval   between what a bridge sends; busy_interval: the same while more than busy_rate
                    events a second come
    gather          how long a bridge waits for company behind a message that may be sent
    busy_wait       how long a chunk waits for a position that a redrive holds
    database_wait   how long a bridge waits for one answer of PostgreSQL; longer than its lock_timeout (5 s),
                    and shorter than a watchdog has patience
    suspect_pieces  parts into which a chunk is cut that was begun before and never ended
    suspect_tries   times a single event may be begun and not ended before it is parked
    queue_bound     length of the Celery queue from which on nothing is sent; resend_bound: nothing again
    """

    chunk_events: int = 1000
    chunk_bytes: int = 1_048_576
    buffer_events: int = 5000
    buffer_bytes: int = 4_194_304
    send_interval: float = 0.04
    busy_interval: float = 0.08
    busy_rate: float = 800.0
    gather: float = 0.004
    effect_timeout: float = 6.0
    task_time_limit: int = 8
    deadline: float = 10.0
    ask_after: float = 1.0
    ask_interval: float = 0.25
    busy_wait: float = 1.0
    database_wait: float = 6.0
    suspect_pieces: int = 16
    suspect_tries: int = 2
    confirm_interval: float = 0.02
    mirror_interval: float = 1.0
    queue_bound: int = 200
    resend_bound: int = 50
    poll_timeout: float = 0.25
    stall_after: float = 10.0  # of a partition, before its log's end; then a new client
    unheld_after: float = 20.0  # the same for what nobody in the group was given
    lost_retry: float = 5.0  # until a partition is asked again for what its log did not hold
    stop_timeout: float = 5.0  # then it leaves the group, all within the ten seconds of a stop


@dataclass(frozen=True, slots=True, kw_only=True)
class RedrivePolicy:
    """Bounds of trying dead letters again; seconds, letters.

    task_time_limit of the handlers' tasks < lease: nobody tries a letter whose lease has ended.
    """

    lease: float = 15.0
    claim: int = 200
    letters_per_task: int = 20
    batch: int = 100
    lock_wait: float = 2.0
    again: float = 1.0
    jitter: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitPolicy:
    """When a handler counts as broken (guarantees.md#r13): `run` failures without one success on their
    partitions, or `share` of its last outcomes (about a hundred a partition), `least` of them."""

    run: int = 20
    share: float = 0.5
    least: int = 30


# Each field can be set by a dict in the settings, for example
# OUTBOX_BRIDGE_POLICY = {"deadline": 20.0}.
DRAIN = DrainPolicy(**getattr(settings, "OUTBOX_DRAIN_POLICY", {}))
BRIDGE = BridgePolicy(**getattr(settings, "OUTBOX_BRIDGE_POLICY", {}))
REDRIVE = RedrivePolicy(**getattr(settings, "OUTBOX_REDRIVE_POLICY", {}))
CIRCUIT = CircuitPolicy(**getattr(settings, "OUTBOX_CIRCUIT_POLICY", {}))


@cache
def routes() -> tuple[Route, ...]:
    """The routes named by the setting OUTBOX_EVENT_MAP."""
    return cast(tuple[Route, ...], import_string(settings.OUTBOX_EVENT_MAP))


def route_named(handler: str) -> Route:
    """The route of a handler. Raises LookupError with the names there are."""
    for route in routes():
        if route.handler == handler:
            return route
    known = ", ".join(sorted(route.handler for route in routes()))
    raise LookupError(f"No handler has the name {handler!r}. The handlers are: {known}.")


@cache
def topics_for_others() -> tuple[Topic, ...]:
    """The topics named by the setting OUTBOX_TOPICS_FOR_OTHERS, which no handler here reads: an
    event of one is done when it is in Kafka."""
    return cast(tuple[Topic, ...], import_string(settings.OUTBOX_TOPICS_FOR_OTHERS))


@cache
def published_events() -> tuple[type[Any], ...]:
    """The event classes named by the setting OUTBOX_PUBLISHES: what the apps publish."""
    return cast(tuple[type[Any], ...], import_string(settings.OUTBOX_PUBLISHES))


@cache
def publishable() -> frozenset[tuple[str, str]]:
    """(topic, type) of every event that may be published, messages of dead letters and canaries included."""
    published = {(event.topic.name, event.type) for event in published_events()}
    canaries = {(route.topic.name, CANARY_TYPE) for route in routes()}
    return frozenset(published | canaries | {(topic.dlq, DLQ_TYPE) for topic in topics()})


def letter_sources() -> tuple[LetterSource, ...]:
    """The sources named by the setting OUTBOX_LETTER_SOURCES."""
    return tuple(import_string(dotted) for dotted in settings.OUTBOX_LETTER_SOURCES)


def known_types(topic: str) -> frozenset[str]:
    """All event types of a topic that this process knows, whoever subscribes to them; canaries too."""
    published = {event.type for event in published_events() if event.topic.name == topic}
    published.add(CANARY_TYPE)
    routed = (route.event_types for route in routes() if route.topic.name == topic)
    return frozenset(published.union(*routed))


def passing_types(route: Route) -> frozenset[str]:
    """Types of the route's topic that this process knows and the handler does not subscribe to."""
    return known_types(route.topic.name) - route.event_types


def release() -> str:
    """Name of the newest release that this process's code knows of."""
    return str(settings.OUTBOX_RELEASE)


def build() -> str:
    """What this process was made of, an image's tag or digest; empty where nobody says it."""
    return str(settings.OUTBOX_BUILD)


@cache
def topics() -> tuple[Topic, ...]:
    """Every topic of the map, with and without a handler, once, by name."""
    found = {route.topic for route in routes()} | set(topics_for_others())
    return tuple(sorted(found, key=lambda topic: topic.name))


@cache
def all_topics() -> tuple[Topic, ...]:
    """The topics of the map and those of their dead letters: all that the drain sends to."""
    return (*topics(), *(topic.dlq_topic for topic in topics()))


@cache
def partition_counts() -> dict[str, int]:
    """Topic -> number of partitions, of all topics that the drain sends to."""
    return {topic.name: topic.partitions for topic in all_topics()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long things are kept, in hours (guarantees.md#r16); topics say their own.

    Longest topic < receipts < outbox: a message that Kafka can still deliver finds its receipt,
    and what has no receipt is still in the outbox. `receipts` counts for messages of others, which
    have no row in the outbox; all other receipts go together with their row.
    """

    receipts: int
    outbox: int
    dead_letters: int


def retention() -> Retention:
    return Retention(
        receipts=settings.OUTBOX_RECEIPT_RETENTION_HOURS,
        outbox=settings.OUTBOX_RETENTION_HOURS,
        dead_letters=settings.OUTBOX_DEAD_LETTER_RETENTION_HOURS,
    )
