"""A model of lanes: writers, claims, crashes, zombies and settles in any order, on a real PostgreSQL.

Kafka is a list here, because the model is of lanes: a batch is appended whole or in part, its
drain settles or dies, and a drain that PostgreSQL has given up may still append what it had in
hand. Whatever happens, first occurrences of a key stand in the order of its commits, without gaps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from devtools.testing.pipeline import settles
from outbox.database.arrays import array_literal
from outbox.drain import settle
from outbox.drain.settle import acknowledged_prefix
from outbox.kafka.producer import BatchDelivery
from outbox.lanes.claim import claim_lanes
from outbox.lanes.floors import Floors
from outbox.lanes.pending import PendingEvent, pending_events
from outbox.models import OutboxEvent, OutboxLane
from outbox.publish import nudge
from outbox.publish.events import publish
from outbox.tests.backbone_rows import ORDER_EVENTS
from outbox.topics import LANES, Topic, lane_of

T = TypeVar("T")

# Two keys of one lane, and two of others.
SAME_LANE = [key for key in map(str, range(200)) if lane_of(key) == lane_of("0")][:2]
KEYS = st.sampled_from([*SAME_LANE, "1", "2"])
DRAINS = st.integers(0, 1)


def settle_batch(settled: Sequence[tuple[int, int, int]]) -> None:
    """Mark (id, partition, offset) as published, as a drain does."""
    if settled:
        with connection.cursor() as cursor:
            columns = [array_literal(column) for column in zip(*settled, strict=True)]
            cursor.execute(settle._SETTLE, columns)


@dataclass(frozen=True)
class Noted:
    """An event of the map's first topic."""

    key: str
    event_id: str = field(default_factory=lambda: str(uuid4()))

    topic: ClassVar[Topic] = ORDER_EVENTS
    source: ClassVar[str] = "/tests"
    type: ClassVar[str] = "ORDER_CREATED"

    def to_json(self) -> str:
        return json.dumps(self.key)


class Crash(Exception):
    """The process is gone, and PostgreSQL has noticed."""


class Session:
    """One process's connection: a thread of its own, told step by step what to do."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._transaction: transaction.Atomic | None = None

    def begin(self, work: Callable[[], T]) -> T:
        """Open a transaction and do the first thing in it."""
        self._transaction = transaction.atomic()
        self._thread.submit(self._transaction.__enter__).result()
        return self._thread.submit(work).result()

    def commit(self, work: Callable[[], None]) -> None:
        """Do the last thing of the transaction, and commit."""
        self._thread.submit(work).result()
        self._leave(None)

    def crash(self) -> None:
        """The connection breaks in the middle of the transaction. Without one it holds nothing, and
        stays: most of the time of these tests went into new connections."""
        if self._transaction is None:
            return
        session = self._thread.submit(_break_connection).result()
        if session is not None:
            _wait_until_noticed(session)
        self._leave(Crash())
        self._close()

    def end(self) -> None:
        self.crash()
        self._close()
        self._thread.shutdown()

    def _close(self) -> None:
        # The connection is each thread's own: it is looked up in the thread that uses it.
        self._thread.submit(lambda: connection.close()).result()  # noqa: PLW0108

    def _leave(self, error: Crash | None) -> None:
        if self._transaction is not None:
            left, self._transaction = self._transaction, None
            kind = type(error) if error else None
            done = self._thread.submit(left.__exit__, kind, error, None)
            with suppress(*([DatabaseError] if error else [])):
                done.result()


def _break_connection() -> int | None:
    """The session's number in PostgreSQL, if there is one."""
    if connection.connection is None:
        return None
    session = connection.connection.info.backend_pid
    connection.connection.close()
    return int(session)


def _wait_until_noticed(session: int) -> None:
    """Its locks go with the session, not with the socket. PostgreSQL's own waiting for it looks every
    100 ms, which was most of the time of these tests."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", (session,))

        def gone() -> bool:
            cursor.execute("SELECT FROM pg_stat_activity WHERE pid = %s", (session,))
            return not cursor.rowcount

        assert settles(gone)


@dataclass
class Batch:
    """What a drain has claimed, and what of it Kafka has acknowledged."""

    events: Sequence[PendingEvent]
    sent: BatchDelivery | None = None


class LaneModel(RuleBasedStateMachine):
    """Two drains, one writer that commits at once and one that takes its time."""

    sessions: ClassVar[tuple[Session, ...]]

    def __init__(self) -> None:
        super().__init__()
        OutboxEvent.objects.all().delete()
        self.committed: dict[str, list[str]] = {}
        self.log: list[tuple[str, str]] = []
        self.batches: dict[int, Batch] = {}
        self.zombies: list[Batch] = []
        self.open: Noted | None = None

    # -- writers ------------------------------------------------------------------------------

    @rule(key=KEYS, count=st.integers(1, 3))
    def write(self, key: str, count: int) -> None:
        if self.open is not None and self.open.key == key:
            return  # the other writer holds the key's row
        events = [Noted(key) for _ in range(count)]
        with transaction.atomic():
            publish(events)
        self.committed.setdefault(key, []).extend(event.event_id for event in events)

    @precondition(lambda self: self.open is None)
    @rule(key=KEYS)
    def write_without_commit(self, key: str) -> None:
        """Its id is drawn now and seen later: after higher ones."""
        event = Noted(key)
        self.sessions[2].begin(lambda: publish([event]))
        self.open = event

    @precondition(lambda self: self.open is not None)
    @rule(commits=st.booleans())
    def finish_the_write(self, commits: bool) -> None:
        event, self.open = self.open, None
        assert event is not None
        if not commits:
            self.sessions[2].crash()
            return
        self.sessions[2].commit(lambda: None)
        self.committed.setdefault(event.key, []).append(event.event_id)

    # -- drains -------------------------------------------------------------------------------

    def _with(self, number: int, wanted: Callable[[Batch | None], bool]) -> int:
        """This drain, or the other if it is not as wanted."""
        return number if wanted(self.batches.get(number)) else 1 - number

    @precondition(lambda self: len(self.batches) < 2)
    @rule(number=DRAINS, lanes=st.integers(1, 2), limit=st.integers(1, 4))
    def claim(self, number: int, lanes: int, limit: int) -> None:
        number = self._with(number, lambda batch: batch is None)
        session = self.sessions[number]
        events = session.begin(lambda: self.claimed(lanes, limit))
        if events:
            self.batches[number] = Batch(events)
        else:
            session.commit(lambda: None)

    def claimed(self, lanes: int, limit: int) -> Sequence[PendingEvent]:
        """The two statements of a drain's claim."""
        claimed = claim_lanes(lanes, floors=Floors())
        return pending_events(claimed, limit=limit, floors=Floors()) if claimed else []

    @precondition(lambda self: any(not batch.sent for batch in self.batches.values()))
    @rule(number=DRAINS, share=st.sampled_from([1.0, 1.0, 0.5, 0.0]))
    def produce(self, number: int, share: float) -> None:
        """All of it, or what a failing producer gets out: a part from the front."""
        number = self._with(number, lambda batch: batch is not None and batch.sent is None)
        self._append(self.batches[number], share)

    def _append(self, batch: Batch, share: float) -> None:
        count = round(len(batch.events) * share)
        batch.sent = BatchDelivery(size=len(batch.events))
        for index, event in enumerate(batch.events[:count]):
            self.log.append((event.envelope.key, str(event.envelope.event_id)))
            batch.sent.acknowledged[index] = len(self.log)

    @precondition(lambda self: any(batch.sent for batch in self.batches.values()))
    @rule(number=DRAINS)
    def settle(self, number: int) -> None:
        number = self._with(number, lambda batch: batch is not None and batch.sent is not None)
        batch = self.batches[number]
        assert batch.sent is not None
        sent = batch.sent
        settled = [
            (batch.events[i].id, batch.events[i].partition, sent.acknowledged[i])
            for i in acknowledged_prefix(batch.events, sent)
        ]
        self.sessions[number].commit(lambda: settle_batch(settled))
        del self.batches[number]

    @precondition(lambda self: self.batches)
    @rule(number=DRAINS, comes_back=st.booleans())
    def crash(self, number: int, comes_back: bool) -> None:
        """PostgreSQL ends the session. A drain that was only stopped still sends what it holds."""
        number = self._with(number, lambda batch: batch is not None)
        batch = self.batches.pop(number)
        self.sessions[number].crash()
        if comes_back and batch.sent is None:
            self.zombies.append(batch)

    @precondition(lambda self: self.zombies)
    @rule(share=st.sampled_from([1.0, 0.5]))
    def a_zombie_sends(self, share: float) -> None:
        self._append(self.zombies.pop(0), share)

    # -- what must hold -----------------------------------------------------------------------

    @invariant()
    def first_occurrences_are_in_order(self) -> None:
        found: dict[str, list[str]] = {}
        for key, event_id in self.log:
            if event_id not in found.setdefault(key, []):
                found[key].append(event_id)
        for key, ids in found.items():
            assert ids == self.committed[key][: len(ids)], f"key {key}: {self.log}"

    def teardown(self) -> None:
        """Everybody dies; one drain comes and finds all that is left, and nothing else."""
        for session in self.sessions:
            session.crash()
        while events := self.sessions[0].begin(lambda: self.claimed(LANES, 1000)):
            batch = Batch(events)
            self._append(batch, 1.0)
            rows = [(event.id, event.partition, 0) for event in events]
            self.sessions[0].commit(lambda rows=rows: settle_batch(rows))  # type: ignore[misc]
        self.sessions[0].commit(lambda: None)
        self.first_occurrences_are_in_order()
        expected = {event_id for ids in self.committed.values() for event_id in ids}
        assert {event_id for _, event_id in self.log} == expected
        assert not OutboxEvent.objects.filter(status=OutboxEvent.Status.NEW).exists()


class RowLocks(LaneModel):
    """The usual outbox: SKIP LOCKED on the rows, and no lock on what orders them."""

    def claimed(self, lanes: int, limit: int) -> Sequence[PendingEvent]:
        pending = OutboxEvent.objects.filter(status=OutboxEvent.Status.NEW).order_by("id")
        free = pending.select_for_update(skip_locked=True)
        ids = set(free.values_list("id", flat=True)[:limit])
        events = pending_events(list(range(LANES)), limit=1000, floors=Floors())
        return [event for event in events if event.id in ids]


@pytest.fixture
def sessions(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(nudge, "nudge", lambda: None)
    LaneModel.sessions = Session(), Session(), Session()
    yield
    for session in LaneModel.sessions:
        session.end()


BOUNDED = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_lanes_keep_the_order_of_each_key(sessions: None) -> None:
    assert OutboxLane.objects.count() == LANES
    run_state_machine_as_test(LaneModel, settings=BOUNDED)


def test_locks_on_rows_do_not(sessions: None) -> None:
    """Found among the first examples, as a rule; when a session that was ended lets go of its rows
    is PostgreSQL's affair, so that a run may need more of them."""
    with pytest.raises(AssertionError, match="key "):
        run_state_machine_as_test(RowLocks, settings=settings(BOUNDED, max_examples=600))
