"""A chunk that nobody has any more is sent again long before its deadline."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
import redis
from django.conf import settings
from django.db import connection

from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.probe.events import decode_sequence_drawn
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import PROBE_HANDLER, drain_all, settles
from outbox import conf
from outbox.bridge.bridge import Bridge
from outbox.bridge.partition import Flight
from outbox.declaration import Route
from outbox.handlers import task
from outbox.inbox.chunk import TaskChunk
from outbox.process import task_queue

pytestmark = pytest.mark.usefixtures("pipeline")

ROUTE = conf.route_named(PROBE_HANDLER)


class Worker:
    """Takes chunks off the bridge; those before the `works_from`th it loses, as one that is killed does."""

    def __init__(self, works_from: int) -> None:
        self.taken: list[TaskChunk] = []
        self._works_from = works_from

    def send(self, route: Route, *, chunks: Sequence[TaskChunk]) -> bool:
        self.taken += chunks
        if len(self.taken) >= self._works_from:
            task.run_chunks(
                handler=route.handler,
                chunks=chunks,
                effect=probe_services.append_entries,
                decode=decode_sequence_drawn,
            )
        return True


@contextmanager
def bridge(monkeypatch: pytest.MonkeyPatch, worker: Worker, deadline: float) -> Iterator[Bridge]:
    """With a deadline that a test does not live to see, unless it is short."""
    monkeypatch.setattr(task_queue, "send", worker.send)
    stop = threading.Event()
    policy = replace(
        conf.BRIDGE, deadline=deadline, ask_after=0.1, ask_interval=0.05, stop_timeout=0.0
    )
    bridge = Bridge(ROUTE, stop=stop, policy=policy)

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


def publish() -> None:
    probe_services.draw(["a"])
    drain_all()


def flights(bridge: Bridge) -> list[Flight]:
    return [p.flight for p in list(bridge.group.partitions.values()) if p.flight]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The lengths of the queue that the bridge has read."""
    answers: list[float] = []
    queue_length = task_queue.queue_length

    def ask(queue: str) -> float:
        answers.append(queue_length(queue))
        return answers[-1]

    monkeypatch.setattr(task_queue, "queue_length", ask)
    return answers


def test_it_comes_again_and_counts_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(works_from=2)
    with bridge(monkeypatch, worker, deadline=10 * PATIENCE):
        publish()
        assert settles(lambda: probe_queries.verdict().applied == 1)
    assert [chunk["attempt"] for chunk in worker.taken] == [0, 0]
    assert probe_queries.verdict().ok


def test_after_that_only_its_deadline_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that ends its process is found by attempts (docs/guarantees.md#r11)."""
    worker = Worker(works_from=4)
    with bridge(monkeypatch, worker, deadline=1.0):
        publish()
        assert settles(lambda: probe_queries.verdict().applied == 1)
    assert [chunk["attempt"] for chunk in worker.taken] == [0, 0, 1, 2]


def test_the_next_chunk_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(works_from=2)
    with bridge(monkeypatch, worker, deadline=10 * PATIENCE) as running:
        publish()
        assert settles(lambda: probe_queries.verdict().applied == 1 and not flights(running))
        worker._works_from = 4
        publish()
        assert settles(lambda: probe_queries.verdict().applied == 2)
    assert [chunk["attempt"] for chunk in worker.taken] == [0, 0, 0, 0]


def test_not_while_somebody_is_at_its_position(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(works_from=2)
    with (
        psycopg.connect(**connection.get_connection_params()) as somebody,
        bridge(monkeypatch, worker, deadline=10 * PATIENCE) as running,
    ):
        assert settles(lambda: len(running.group.partitions) == ROUTE.topic.partitions)
        somebody.execute(
            "SELECT FROM bridge_position WHERE handler = %s FOR UPDATE", (PROBE_HANDLER,)
        )
        publish()
        assert settles(lambda: any(flight.ask_at == math.inf for flight in flights(running)))
        somebody.rollback()
    assert len(worker.taken) == 1


def test_not_while_the_queue_may_hold_it(
    monkeypatch: pytest.MonkeyPatch, asked: list[float]
) -> None:
    worker = Worker(works_from=2)
    broker = redis.Redis.from_url(settings.CELERY_BROKER_URL)
    broker.lpush(ROUTE.queue, "a task")
    try:
        with bridge(monkeypatch, worker, deadline=10 * PATIENCE):
            publish()
            assert settles(lambda: bool(worker.taken))
            asked.clear()
            assert settles(lambda: asked[:3] == [1, 1, 1])
            assert len(worker.taken) == 1
            broker.delete(ROUTE.queue)
            assert settles(lambda: probe_queries.verdict().applied == 1)
    finally:
        broker.delete(ROUTE.queue)
