"""Order per key under concurrent drains; and each guard removed, to see the checker find the damage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction

from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import PROBE_HANDLER, apply_probe_log, chunks_since, drain_all
from outbox.conf import DrainPolicy
from outbox.drain.batch import drain_batch
from outbox.drain.state import DrainState
from outbox.handlers import apply, task
from outbox.inbox import receipts
from outbox.kafka import producer
from outbox.kafka.producer import BatchDelivery, OutgoingMessage
from outbox.lanes import claim
from outbox.lanes import pending as lane_events
from outbox.lanes.pending import PendingEvent
from outbox.models import OutboxEvent

pytestmark = pytest.mark.usefixtures("pipeline")


def in_a_thread(work: Callable[[], Any]) -> threading.Thread:
    def run() -> None:
        work()
        connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_many_drains_at_once_keep_the_order_of_each_key() -> None:
    keys = [f"hot-{number}" for number in range(8)]
    for _ in range(60):
        probe_services.draw(keys)
    small = DrainPolicy(batch_events=7, lanes_per_claim=2)

    def drain_small() -> None:
        while OutboxEvent.objects.filter(status=OutboxEvent.Status.NEW).exists():
            drain_batch(DrainState(), small)

    for thread in [in_a_thread(drain_small) for _ in range(4)]:
        thread.join()
    apply_probe_log()
    verdict = probe_queries.verdict()
    assert (verdict.drawn, verdict.applied) == (480, 480)
    assert verdict.ok


def send_while_another_drain_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain is held at the point of sending; its key gets another event; a second drain runs."""
    holding, go_on = threading.Event(), threading.Event()
    real_send = producer.send
    first: list[bool] = []

    def held_send(messages: Sequence[OutgoingMessage], *, timeout: float) -> BatchDelivery:
        if not first:
            first.append(True)
            holding.set()
            assert go_on.wait(PATIENCE)
        return real_send(messages, timeout=timeout)

    monkeypatch.setattr(producer, "send", held_send)
    probe_services.draw(["k"])
    slow = in_a_thread(lambda: drain_batch(DrainState()))
    assert holding.wait(PATIENCE)
    probe_services.draw(["k"])
    drain_all()
    go_on.set()
    slow.join()
    drain_all()


def rows_without_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual outbox: SKIP LOCKED on the rows, no lock on what orders them."""

    def no_lock(limit: int, **_: object) -> list[int]:
        pending = OutboxEvent.objects.filter(status=OutboxEvent.Status.NEW)
        free = pending.select_for_update(skip_locked=True)
        return sorted(set(free.values_list("lane", flat=True)[:limit]))

    read_all = lane_events.pending_events

    def only_free(lanes: Sequence[int], **options: Any) -> list[PendingEvent]:
        free = OutboxEvent.objects.filter(lane__in=lanes, status=0).select_for_update(
            skip_locked=True
        )
        ids = set(free.values_list("id", flat=True))
        return [event for event in read_all(lanes, **options) if event.id in ids]

    monkeypatch.setattr(claim, "claim_lanes", no_lock)
    monkeypatch.setattr(lane_events, "pending_events", only_free)


class TestTheLaneLock:
    def test_keeps_a_second_drain_from_overtaking(self, monkeypatch: pytest.MonkeyPatch) -> None:
        send_while_another_drain_runs(monkeypatch)
        apply_probe_log()
        verdict = probe_queries.verdict()
        assert (verdict.applied, verdict.ok) == (2, True)

    def test_removed_is_seen_as_a_violation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows_without_lanes(monkeypatch)
        send_while_another_drain_runs(monkeypatch)
        apply_probe_log()
        verdict = probe_queries.verdict()
        assert (verdict.applied, verdict.lost) == (2, 0)
        assert verdict.violations > 0


def apply_second_chunk_first() -> None:
    probe_services.draw(["k"])
    probe_services.draw(["k"])
    drain_all()
    first, second = chunks_since(PROBE_HANDLER, size=1)
    for chunk in (second, first, second):
        task.apply_chunks(
            handler=PROBE_HANDLER, chunks=[chunk], effect=probe_services.append_entries
        )


class TestThePosition:
    def test_refuses_a_chunk_out_of_turn(self) -> None:
        apply_second_chunk_first()
        verdict = probe_queries.verdict()
        assert (verdict.applied, verdict.ok) == (2, True)

    def test_removed_is_seen_as_a_violation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(apply, "_refusal", lambda *_: "")
        monkeypatch.setattr(
            apply,
            "_not_yet_applied",
            lambda chunks, _: {e.event_id: e for chunk in chunks for _, e in chunk.events},
        )
        apply_second_chunk_first()
        assert probe_queries.verdict().violations > 0


def publish_twice() -> None:
    """What a drain does that dies between Kafka's acknowledgement and its own COMMIT."""
    probe_services.draw(["k"])
    with suppress(InterruptedError), transaction.atomic():
        drain_batch(DrainState())
        raise InterruptedError
    drain_all()


class TestReceipts:
    def test_drop_what_a_dying_drain_published_twice(self) -> None:
        publish_twice()
        assert sum(len(chunk.events) for chunk in chunks_since(PROBE_HANDLER)) == 2
        apply_probe_log()
        verdict = probe_queries.verdict()
        assert (verdict.applied, verdict.ok) == (1, True)

    def test_drop_it_too_when_it_comes_in_two_chunks(self) -> None:
        publish_twice()
        for chunk in list(chunks_since(PROBE_HANDLER, size=1)):
            task.apply_chunks(
                handler=PROBE_HANDLER, chunks=[chunk], effect=probe_services.append_entries
            )
        assert probe_queries.verdict().duplicates == 0

    def test_removed_are_seen_as_a_duplicate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def believe_everything(handler: str, event_ids: Iterable[UUID]) -> set[UUID]:
            return set(event_ids)

        monkeypatch.setattr(receipts, "insert_receipts", believe_everything)
        publish_twice()
        for chunk in list(chunks_since(PROBE_HANDLER, size=1)):
            task.apply_chunks(
                handler=PROBE_HANDLER, chunks=[chunk], effect=probe_services.append_entries
            )
        assert probe_queries.verdict().duplicates == 1
