"""A type that only the newer release knows: the upgrade, the rollback, and the upgrade after it.

Kafka, PostgreSQL and the bridge are real; two event maps stand for the two releases, and the worker
is played by the test, with the map of the release that runs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from django.db import connection
from django.db.models import Sum

from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.probe.events import PROBE_TOPIC, SequenceDrawn, decode_sequence_drawn
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import PROBE_HANDLER, drain_all, settles
from outbox import conf, metrics, tasks
from outbox.audit import compare
from outbox.bridge.bridge import Bridge
from outbox.dead_letters import redrive
from outbox.declaration import Route
from outbox.envelope import EventEnvelope
from outbox.handlers import task
from outbox.inbox.chunk import TaskChunk
from outbox.kafka import producer
from outbox.kafka.producer import OutgoingMessage
from outbox.models import BridgePosition, DeadLetter, InboxReceipt, OutboxEvent
from outbox.process import task_queue
from outbox.publish import events as publishing
from outbox.topics import lane_of, partition_of

pytestmark = pytest.mark.usefixtures("pipeline")

State = DeadLetter.State


class SequenceMarked(SequenceDrawn, frozen=True, kw_only=True):
    """The event that the newer release adds."""

    type: ClassVar[str] = "SEQUENCE_MARKED"


OLDER = conf.route_named(PROBE_HANDLER)
NEWER = replace(OLDER, event=(SequenceDrawn, SequenceMarked))


def keys_of_one_partition(count: int) -> list[str]:
    keys = (f"key-{number}" for number in range(10_000))
    same = [key for key in keys if partition_of(lane_of(key), PROBE_TOPIC.partitions) == 3]
    return same[:count]


A, B = keys_of_one_partition(2)
ELSEWHERE = next(
    key
    for key in (f"key-{number}" for number in range(100))
    if partition_of(lane_of(key), PROBE_TOPIC.partitions) == 5
)


def effect(events: Sequence[EventEnvelope]) -> None:
    """As code that reads its payloads: what it does not know it cannot apply."""
    known = conf.route_named(PROBE_HANDLER).event_types
    strange = {envelope.type for envelope in events} - known
    if strange:
        raise ValueError(f"cannot read {strange}")
    probe_services.append_entries(events)


def worker(
    route: Route,
    *,
    chunks: Sequence[TaskChunk] = (),
    letters: Sequence[redrive.Claim] = (),
) -> bool:
    if chunks:
        task.run_chunks(
            handler=route.handler, chunks=chunks, effect=effect, decode=decode_sequence_drawn
        )
    redrive.run_letters(handler=route.handler, letters=letters, effect=effect)
    return True


@pytest.fixture(autouse=True)
def _without_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_queue, "send", worker)
    monkeypatch.setattr(task_queue, "queue_length", lambda _: 0)


@contextmanager
def release(route: Route) -> Iterator[Bridge]:
    """Worker, beat and bridge of one release; the bridge stops at the end."""
    routes = tuple(route if each.handler == PROBE_HANDLER else each for each in conf.routes())
    stop = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conf, "routes", lambda: routes)
        bridge = Bridge(route, stop=stop)

        def run() -> None:
            try:
                bridge.run()
            finally:
                connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield bridge
        finally:
            stop.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()


def publish(key: str, event: type[SequenceDrawn] = SequenceDrawn) -> None:
    """What a writer of the newer release does, whatever else runs."""
    types = conf.publishable() | {(PROBE_TOPIC.name, SequenceMarked.type)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "publishable", lambda: types)
        patch.setattr(probe_services, "SequenceDrawn", event)
        probe_services.draw([key])
    drain_all()


def applied() -> int:
    return probe_queries.verdict().applied


def waiting() -> float:
    labels = metrics.UNKNOWN_TYPE_WAITING.labels(PROBE_HANDLER, SequenceMarked.type, "1")
    return float(labels._value.get())


def undone() -> list[str]:
    return [each.reason for page in compare.pages(OLDER, {}) for each in page]


def redriven() -> bool:
    tasks.redrive_letters()
    return not DeadLetter.objects.filter(state__lt=State.APPLIED).exists()


def test_upgrade_rollback_and_upgrade(settings: Any) -> None:
    settings.OUTBOX_UNKNOWN_TYPE_WAIT = 600
    # Writers of the newer release begin before the older bridge and worker are replaced.
    with release(OLDER):
        publish(A)
        assert settles(lambda: applied() == 1)
        publish(A, SequenceMarked)
        publish(B)
        publish(ELSEWHERE)
        assert settles(lambda: applied() == 2)  # the other partitions go on
        assert settles(lambda: waiting() == 1)
        assert undone() == [compare.MissingReason.UNDER_WAY] * 2
    assert not DeadLetter.objects.exists()
    position = BridgePosition.objects.get(handler=PROBE_HANDLER, partition=3)
    assert (position.attempts, position.failed_at) == (0, None)
    with release(NEWER):
        assert settles(lambda: applied() == 4)
        publish(A, SequenceMarked)
        assert settles(lambda: applied() == 5)
    # Back to the older release; what the newer one published has waited for long enough.
    settings.OUTBOX_UNKNOWN_TYPE_WAIT = 0
    publish(A, SequenceMarked)
    publish(A)
    publish(B)
    with release(OLDER):
        assert settles(lambda: applied() == 6)  # of key B
        assert settles(lambda: DeadLetter.objects.count() == 2)
        assert waiting() == 0
        tasks.redrive_letters()
        letters = DeadLetter.objects.values_list("state", "attempts")
        assert set(letters) == {(State.PARKED, 0)}
        assert undone() == [compare.MissingReason.PARKED] * 2
    assert BridgePosition.objects.aggregate(failures=Sum("failures"))["failures"] == 0
    with release(NEWER):
        assert settles(redriven)
        assert applied() == 8
    assert undone() == []
    assert probe_queries.verdict().ok
    assert InboxReceipt.objects.filter(handler=PROBE_HANDLER).count() == 8


def test_a_restart_does_not_begin_the_wait_anew(settings: Any) -> None:
    settings.OUTBOX_UNKNOWN_TYPE_WAIT = 600
    publish(A, SequenceMarked)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE event_outbox SET published_at = published_at - interval '601 s'")
    with release(OLDER):
        assert settles(lambda: DeadLetter.objects.count() == 1)
    assert DeadLetter.objects.get().error.startswith("unknown type SEQUENCE_MARKED")


def test_nobody_waits_for_a_type_of_another_producer(settings: Any) -> None:
    settings.OUTBOX_UNKNOWN_TYPE_WAIT = 600
    headers: list[tuple[str, str | bytes]] = [("ce_type", b"SEQUENCE_MARKED")]
    burst = [OutgoingMessage(PROBE_TOPIC.name, 3, A.encode(), b"{}", headers)] * 5
    assert producer.send(burst, timeout=15).complete
    publish(A)
    with release(OLDER):
        assert settles(lambda: applied() == 1)
    counted = metrics.FOREIGN_TYPES.labels(PROBE_HANDLER, "SEQUENCE_MARKED")
    assert counted._value.get() >= 5
    assert not DeadLetter.objects.exists()
    assert InboxReceipt.objects.count() == OutboxEvent.objects.count() == 1


def test_an_older_worker_beside_a_newer_bridge_leaves_what_it_does_not_know(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OUTBOX_UNKNOWN_TYPE_WAIT = 600
    older = tuple(conf.routes())
    old_worker = threading.Event()
    old_worker.set()

    def one_of_two(route: Route, **what: Any) -> bool:
        if not old_worker.is_set():
            return worker(route, **what)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conf, "routes", lambda: older)
            return worker(route, **what)

    monkeypatch.setattr(task_queue, "send", one_of_two)
    publish(B)
    publish(A, SequenceMarked)
    publish(A)
    with release(NEWER):
        assert settles(lambda: applied() == 1)
        assert not DeadLetter.objects.exists()
        old_worker.clear()
        assert settles(lambda: applied() == 3)
    assert not DeadLetter.objects.exists()
    assert probe_queries.verdict().ok
