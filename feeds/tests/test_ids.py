"""Ids of posts: never twice, always growing, and as old as PostgreSQL says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from devtools.testing.patience import PATIENCE
from feeds import ids
from feeds.ids import (
    A_MILLISECOND,
    EPOCH,
    LEASE_SECONDS,
    Generator,
    NodeLease,
    NoNode,
    hold_node,
    moment_of,
)
from feeds.models import FeedNode, Post
from feeds.tests.stage import held_open

HOUR = 3600.0
NOON = datetime(2026, 3, 11, 12, tzinfo=UTC)
NOON_MS = int((NOON - EPOCH).total_seconds() * 1000)


class Clocks:
    """A process's monotonic clock, which only goes on, and PostgreSQL's, which may step."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0
        self.step(0.0)

    def monotonic(self) -> float:
        return self.seconds

    def tick(self, seconds: float) -> None:
        self.seconds += seconds
        self._tell()

    def step(self, seconds: float) -> None:
        """PostgreSQL's clock alone."""
        self.ahead = getattr(self, "ahead", 0.0) + seconds
        self._tell()

    @property
    def ms(self) -> int:
        """PostgreSQL's, as ids have it."""
        return NOON_MS + round((self.seconds - 1_000_000.0 + self.ahead) * 1000)

    def _tell(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('stepping.ms', %s, false)", (str(self.ms),))


@pytest.fixture
def no_nodes(transactional_db: None) -> None:
    """Nobody has held one yet: other tests leave theirs, whose thread is no part of a transaction."""
    ids.close()
    FeedNode.objects.all().delete()


@pytest.fixture
def stepping(no_nodes: None) -> Iterator[None]:
    """On this connection `clock_timestamp()` is a clock of the test, and the nodes are its own: a web
    process of other tests would find its leases over."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            CREATE SCHEMA stepping;
            CREATE TABLE stepping.feed_nodes (LIKE public.feed_nodes INCLUDING ALL);
            CREATE FUNCTION stepping.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$
                SELECT '2026-01-01 00:00Z'::timestamptz
                       + current_setting('stepping.ms')::bigint * interval '1 millisecond' $$;
            SET search_path = stepping, pg_catalog, public;
            """
        )
        yield
        cursor.execute("RESET search_path; DROP SCHEMA stepping CASCADE")


class Process:
    """Somebody who draws, with the only node there is."""

    def __init__(self, name: str, clocks: Clocks) -> None:
        self.name = name
        self.clocks = clocks
        self.generator = Generator(clocks.monotonic)
        self.drawn: list[int] = []

    def hold(self) -> NodeLease | None:
        lease = hold_node(
            self.name,
            node=self.generator.node,
            last_ms=self.generator.last_ms,
            nodes=1,
            monotonic=self.clocks.monotonic,
        )
        if lease is not None:
            self.generator.take(lease)
        return lease

    def draw(self, count: int = 1) -> list[int]:
        """As many as it may."""
        drawn: list[int] = []
        try:
            for _ in range(count):
                drawn.append(self.generator.draw())
        except NoNode:
            pass
        self.drawn += drawn
        return drawn


@pytest.mark.usefixtures("stepping")
def test_the_time_is_that_of_postgresql_whatever_it_does() -> None:
    """An hour ahead and back; ids of a process grow all the same."""
    clocks = Clocks()
    process = Process("a", clocks)
    process.hold()
    clocks.tick(5)
    [first] = process.draw()
    assert moment_of(first) == NOON + timedelta(seconds=5)

    clocks.step(HOUR)
    [unaware] = process.draw()
    assert moment_of(unaware) == NOON + timedelta(seconds=5)
    process.hold()
    [ahead] = process.draw()
    assert moment_of(ahead) == NOON + timedelta(seconds=5 + HOUR)

    clocks.step(-HOUR)
    process.hold()
    clocks.tick(1)
    behind = process.draw(3 * A_MILLISECOND)
    assert len(behind) == 3 * A_MILLISECOND  # time stands, ids do not
    assert moment_of(behind[-1]) - moment_of(ahead) == timedelta(milliseconds=3)
    assert process.drawn == sorted(set(process.drawn))


@pytest.mark.usefixtures("stepping")
def test_a_process_whose_lease_is_over_draws_nothing() -> None:
    clocks = Clocks()
    process = Process("a", clocks)
    assert process.draw() == []
    process.hold()
    clocks.tick(LEASE_SECONDS - 0.001)
    assert len(process.draw()) == 1
    clocks.tick(0.001)
    assert process.draw() == []
    process.hold()
    assert len(process.draw()) == 1


@pytest.mark.usefixtures("stepping")
def test_the_lease_counts_from_before_it_was_asked_for() -> None:
    """An answer that took long leaves less of it, never more than the database gives."""
    clocks = Clocks()
    process = Process("a", clocks)
    moments = iter([clocks.seconds, clocks.seconds + 10])
    lease = hold_node("a", nodes=1, monotonic=lambda: next(moments))
    assert lease is not None
    process.generator.take(lease)
    clocks.tick(LEASE_SECONDS - 0.001)
    assert len(process.draw()) == 1
    clocks.tick(0.001)
    assert process.draw() == []


@pytest.mark.usefixtures("stepping")
def test_no_more_than_was_promised_is_drawn() -> None:
    clocks = Clocks()
    process = Process("a", clocks)
    lease = process.hold()
    assert lease is not None
    few = NodeLease(
        node=lease.node,
        first_ms=lease.first_ms,
        highest_ms=lease.clock_ms + 1,
        clock_ms=lease.clock_ms,
        read_at=lease.read_at,
        until=lease.until,
    )
    process.generator.take(few)
    assert len(process.draw(3 * A_MILLISECOND)) == 2 * A_MILLISECOND


@pytest.mark.usefixtures("stepping")
def test_a_late_process_has_milliseconds_of_its_own() -> None:
    """PostgreSQL's clock goes ahead, so another takes the node; the first one's lease is not over by
    its own clock, and both draw."""
    clocks = Clocks()
    early, late = Process("a", clocks), Process("b", clocks)
    early.hold()
    clocks.step(HOUR)
    assert late.hold() is not None
    clocks.step(-HOUR)
    early.draw(1000), late.draw(1000)
    assert early.hold() is None  # the node is the other's
    assert not set(early.drawn) & set(late.drawn)
    assert early.draw() != []
    clocks.tick(LEASE_SECONDS)
    assert early.draw() == []


@pytest.mark.usefixtures("stepping")
def test_who_gets_his_node_back_begins_above_what_another_drew_with_it() -> None:
    """Also at the very moment at which the other did, because PostgreSQL's clock came back to it."""
    clocks = Clocks()
    first, other = Process("a", clocks), Process("b", clocks)
    first.hold()
    clocks.tick(LEASE_SECONDS)
    other.hold()
    clocks.step(HOUR)
    other.hold()
    other.draw(3)
    clocks.step(-HOUR)
    other.hold()
    clocks.tick(LEASE_SECONDS)
    assert first.hold() is not None
    clocks.step(HOUR - LEASE_SECONDS)
    first.hold()
    first.draw(3)
    assert len(set(first.drawn) | set(other.drawn)) == 6


@pytest.mark.usefixtures("stepping")
def test_promises_do_not_run_ahead() -> None:
    """A node that is renewed often is not promised the far future: its next holder would begin there."""
    clocks = Clocks()
    process = Process("a", clocks)
    for _ in range(50):
        process.hold()
        clocks.tick(0.1)
    assert FeedNode.objects.get().highest_ms <= clocks.ms + LEASE_SECONDS * 1000
    clocks.tick(LEASE_SECONDS)
    other = Process("b", clocks)
    other.hold()
    [first] = other.draw()
    assert moment_of(first) == EPOCH + timedelta(milliseconds=clocks.ms)


steps = st.one_of(
    st.tuples(st.just("tick"), st.sampled_from([0.0005, 0.5, 9.0, 29.9995, 31.0])),
    st.tuples(st.just("step"), st.sampled_from([-HOUR, -40.0, -0.001, 0.001, 31.0, HOUR])),
    st.tuples(st.just("hold"), st.integers(0, 2)),
    st.tuples(st.just("draw"), st.integers(0, 2)),
    st.tuples(st.just("flood"), st.integers(0, 2)),
)


@pytest.mark.usefixtures("stepping")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(steps, min_size=5, max_size=30))
def test_nobody_draws_what_another_has_drawn(story: list[tuple[str, float]]) -> None:
    """Three processes, one node, clocks that step: each id once, and those of a process grow."""
    FeedNode.objects.all().delete()
    clocks = Clocks()
    processes = [Process(name, clocks) for name in "abc"]
    for what, value in story:
        match what:
            case "tick":
                clocks.tick(value)
            case "step":
                clocks.step(value)
            case "hold":
                processes[int(value)].hold()
            case "draw":
                processes[int(value)].draw(2)
            case "flood":
                processes[int(value)].draw(2 * A_MILLISECOND + 5)
    drawn = [id_ for process in processes for id_ in process.drawn]
    assert len(drawn) == len(set(drawn))
    for process in processes:
        assert process.drawn == sorted(process.drawn)
        assert all(id_ % 2 == 0 and 0 < id_ < 1 << 63 for id_ in process.drawn)


@pytest.mark.usefixtures("no_nodes")
def test_each_of_many_gets_a_node_of_his_own() -> None:
    """Eight at once fight for five nodes, two of which others have let go."""
    long_ago = datetime(2026, 1, 2, tzinfo=UTC)
    FeedNode.objects.bulk_create(
        FeedNode(node=node, owner="gone", until=long_ago, highest_ms=7) for node in (0, 3)
    )
    start = threading.Barrier(8)

    def fight(name: str) -> int | None:
        try:
            start.wait(PATIENCE)
            for _ in range(5):  # who lost a race for a new number asks again
                if (lease := hold_node(name, nodes=5)) is not None:
                    return lease.node
            return None
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        held = list(pool.map(fight, "abcdefgh"))
    assert sorted(node for node in held if node is not None) == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("no_nodes")
def test_what_a_transaction_draws_stays_promised_when_it_is_rolled_back() -> None:
    with transaction.atomic():
        drawn = ids.draw()
        transaction.set_rollback(True)
    assert FeedNode.objects.get().highest_ms > drawn >> ids.TIME_SHIFT
    with pytest.raises(RuntimeError), transaction.atomic():
        hold_node("somebody")


@pytest.mark.usefixtures("no_nodes")
def test_threads_of_a_process_share_a_node() -> None:
    with ThreadPoolExecutor(8) as pool:
        drawn = [
            id_
            for many in pool.map(lambda _: [ids.draw() for _ in range(500)], range(8))
            for id_ in many
        ]
    assert len(set(drawn)) == 4000
    first = FeedNode.objects.get()
    since_2026 = (timezone.now() - datetime(2026, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1)
    for id_ in drawn:
        assert abs((id_ >> 22) - since_2026) < 300_000
        assert id_ >> 12 & 1023 == first.node
    ids.close()
    ids.draw()  # another process, as it were
    assert FeedNode.objects.exclude(node=first.node).get().owner != first.owner


@pytest.mark.usefixtures("no_nodes")
def test_who_cannot_wait_is_told_at_once_and_the_next_one_is_served() -> None:
    with pytest.raises(NoNode):
        ids.draw(wait=0)
    assert ids.draw() > 0
    assert ids.draw(wait=0) > 0


@pytest.mark.usefixtures("no_nodes")
def test_whatever_fails_while_a_node_is_asked_for_it_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ids, "AGAIN_SECONDS", 0.01)
    answers = iter([MemoryError, KeyError])

    def failing(*of: Any, **how: Any) -> NodeLease | None:
        for error in answers:
            raise error
        return hold_node(*of, **how)

    monkeypatch.setattr(ids, "hold_node", failing)
    before = not_held()
    assert ids.draw(wait=20) > 0
    assert not_held() == before + 2


def not_held() -> float:
    return REGISTRY.get_sample_value("feed_nodes_not_held_total") or 0.0


@pytest.mark.usefixtures("no_nodes")
def test_without_a_node_a_post_is_refused_and_can_be_sent_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(ids, "AGAIN_SECONDS", 0.01)
    post = {"author_id": "ada", "content": "hello"}

    def taken() -> None:
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE feed_nodes IN ACCESS EXCLUSIVE MODE")

    with held_open(taken):
        answer = client.post("/posts", post, content_type="application/json")
        assert (answer.status_code, answer["Retry-After"]) == (503, "2")
        assert answer.json() == {
            "error": "This process cannot create post ids now; nothing was stored, try again.",
            "details": [],
            "outcome": "not_stored",
        }
        assert not Post.objects.exists()
    monkeypatch.undo()
    assert client.post("/posts", post, content_type="application/json").status_code == 202
