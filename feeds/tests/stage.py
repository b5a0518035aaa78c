"""A stage for tests of the fan-out: posts and follows are written as the API writes them, events are
applied and slices worked off when the test says so, all in the test's own process."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connection, connections, transaction
from django.db.models.functions import Now

from devtools.testing import posts
from devtools.testing.patience import PATIENCE
from feeds import cache, services
from feeds.checking.compare import FeedComparison, compare_entries
from feeds.checking.rebuild import all_users
from feeds.events import FEED_EVENTS_TOPIC, FOLLOW_EVENTS_TOPIC
from feeds.fanout import handlers, work
from feeds.fanout.claims import SliceClaims
from feeds.fanout.slices import LEASES, SliceBatch
from feeds.ids import EPOCH_MS, TIME_SHIFT
from feeds.models import FeedSlice, Follow, SliceKind
from feeds.reading.pages import pages
from feeds.reading.questions import FeedQuestion
from feeds.services import NewPost, Pair
from outbox.envelope import EventEnvelope
from outbox.inbox import receipts
from outbox.models import InboxReceipt, OutboxEvent
from restapi.lookup import run

__all__ = [
    "Held",
    "Other",
    "apply_events",
    "assert_feeds_are_the_truth",
    "claim",
    "compare",
    "delete",
    "end_leases",
    "entries",
    "envelopes",
    "follow",
    "held_open",
    "new_id",
    "number_of",
    "post",
    "settle",
    "settle_all_but",
    "shown",
    "truth",
    "unfollow",
    "work_off",
]

_places = itertools.count()
PAGE = 7
_EFFECTS = {
    FEED_EVENTS_TOPIC.name: ("cut_posts", handlers.cut_posts),
    FOLLOW_EVENTS_TOPIC.name: ("count_follows", handlers.count_follows),
}


def new_id() -> int:
    """The id of a post of this moment; each is higher than the last."""
    ms = int(time.time() * 1000) - EPOCH_MS + next(_places)
    return ms << TIME_SHIFT


def post(author: str, post_id: int | None = None) -> int:
    """A post of this author, committed; its id."""
    id_ = post_id or new_id()
    posts.create_posts([NewPost(post_id=id_, author_id=author, content="words")])
    return id_


def delete(*post_ids: int) -> None:
    services.delete_posts(post_ids)


def follow(follower: str, *authors: str) -> None:
    posts.follow([Pair(follower, author) for author in authors])


def unfollow(follower: str, *authors: str) -> None:
    services.unfollow([Pair(follower, author) for author in authors])


def number_of(follower: str, author: str) -> int:
    """The number of the follow."""
    return int(Follow.objects.get(follower_id=follower, followee_id=author).number)


def apply_events(*types: str) -> int:
    """Apply the events committed so far (of these types), each once, as the handlers' tasks do."""
    applied = 0
    for topic, (handler, effect) in _EFFECTS.items():
        done = InboxReceipt.objects.filter(handler=handler).values("event_id")
        rows = OutboxEvent.objects.filter(topic=topic).exclude(event_id__in=done).order_by("id")
        events = [_envelope(row) for row in rows if not types or row.type in types]
        if events:
            with transaction.atomic():
                receipts.insert_receipts(handler, [event.event_id for event in events])
                effect(events)
        applied += len(events)
    return applied


def envelopes(type_: str) -> list[EventEnvelope]:
    """All committed events of a type, whatever was applied."""
    return [_envelope(row) for row in OutboxEvent.objects.filter(type=type_).order_by("id")]


def _envelope(row: OutboxEvent) -> EventEnvelope:
    return EventEnvelope(
        event_id=row.event_id,
        type=row.type,
        topic=row.topic,
        key=row.key,
        source=row.source,
        time="",
        payload=row.payload,
    )


def claim(kind: SliceKind, limit: int = 100) -> SliceBatch:
    """Hold all slices of a kind that are due."""
    return SliceBatch(
        kind, LEASES.claim(limit, seconds=60.0, where="kind = %s", parameters=(kind,))
    )


def work_off() -> int:
    """Apply slices until none is due; how many were finished."""
    claims, finished = SliceClaims(), 0
    while batch := claims.take():
        done = work.apply_batch(batch)
        if done is None:
            break
        finished += done
    return finished


def settle() -> None:
    """Until there is nothing left to do."""
    give_up = time.monotonic() + PATIENCE
    while apply_events() + work_off() or _is_open():
        assert time.monotonic() < give_up, "slices are not finished"


def settle_all_but(batch: SliceBatch) -> None:
    """The same, while the slices of the batch are held."""
    give_up = time.monotonic() + PATIENCE
    while apply_events() + work_off() or _is_open([lease.id for lease in batch.leases]):
        assert time.monotonic() < give_up, "slices are not finished"


def _is_open(but: Sequence[int] = ()) -> bool:
    return FeedSlice.objects.filter(failed_at=None).exclude(id__in=but).exists()


def end_leases() -> None:
    """Whoever holds a slice has had his time."""
    FeedSlice.objects.update(due_at=Now())


def entries(user: str) -> dict[int, int]:
    """Post -> number of the follow, newest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT post_id, follow_number FROM feed_entries WHERE user_id = %s ORDER BY 1 DESC",
            (user,),
        )
        return dict(cursor.fetchall())


def truth(user: str) -> list[int]:
    """The sentence of the contract: posts, not deleted, of who is followed now, and the user's own."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT id FROM posts
            WHERE deleted_at IS NULL AND (author_id = %s OR author_id IN (
                SELECT followee_id FROM follows WHERE follower_id = %s AND active))
            ORDER BY id DESC
            """,
            (user, user),
        )
        return [row[0] for row in cursor.fetchall()]


def shown(user: str) -> list[int]:
    """All that readers are shown, page by page, newest first."""
    found: list[int] = []
    before = None
    while True:
        steps = pages([FeedQuestion(user, PAGE, before=before)], deep=True)
        [page] = run(steps, redis=lambda commands: [cache.ask(each) for each in commands])
        assert page is not None
        found += page.ids
        if page.next_before is None:
            return found
        before = page.next_before


def compare() -> FeedComparison:
    """Every user's entries against the truth."""
    found = FeedComparison()
    with transaction.atomic():
        for users in all_users():
            compare_entries(users, found)
    return found


def assert_feeds_are_the_truth(*users: str) -> None:
    """Each of them is shown it, and what is stored of anybody is nothing else."""
    for user in users:
        assert shown(user) == truth(user)
    found = compare()
    assert (found.different, found.counts["owed"]) == (0, 0), found.differences


class Other:
    """Work of another connection, in a thread of its own."""

    def __init__(self, work_: Callable[[], Any]) -> None:
        self.result: Any = None
        self._failure: BaseException | None = None
        self._pid: int | None = None
        self._is_known = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work_,), daemon=True)
        self._thread.start()
        assert self._is_known.wait(PATIENCE)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stands(self) -> bool:
        """Wait until it has ended, or waits for a lock; whether it waits."""
        give_up = time.monotonic() + PATIENCE
        while self._thread.is_alive():
            assert time.monotonic() < give_up
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s",
                    (self._pid,),
                )
                row = cursor.fetchone()
            if row and row[0]:
                return True
            time.sleep(0.005)
        return False

    def join(self) -> Any:
        """What came of it; raises what it raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure
        return self.result

    def _run(self, work_: Callable[[], Any]) -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                self._pid = cursor.fetchone()[0]
            self._is_known.set()
            self.result = work_()
        except BaseException as failure:  # noqa: BLE001  (raised again by join)
            self._failure = failure
        finally:
            self._is_known.set()
            connections.close_all()


@contextmanager
def held_open(work_: Callable[[], Any]) -> Iterator[Held]:
    """What `work_` does, in a transaction of another connection that is open within the block, and
    commits at its end or before, when it is told to."""
    held = Held()
    held.start(work_)
    try:
        yield held
    finally:
        held.commit()


class Held:
    """A transaction that is held open."""

    def __init__(self) -> None:
        self._is_held, self._go_on = threading.Event(), threading.Event()
        self.result: Any = None

    def start(self, work_: Callable[[], Any]) -> None:
        """Begin, and return when its work is done and not committed."""
        self._other = Other(lambda: self._hold(work_))
        while not self._is_held.wait(0.01):
            if not self._other.is_alive:
                self._other.join()

    def commit(self) -> None:
        """Let it commit, and return when it has."""
        self._go_on.set()
        self._other.join()

    def _hold(self, work_: Callable[[], Any]) -> None:
        with transaction.atomic():
            self.result = work_()
            self._is_held.set()
            assert self._go_on.wait(PATIENCE)
