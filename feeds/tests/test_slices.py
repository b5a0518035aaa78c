"""Slices: who comes first, what becomes of one that fails, windows that are full, caches that confirm."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from feeds import cache, metrics
from feeds.fanout import claims, measuring, slices, work
from feeds.fanout.claims import SliceClaims
from feeds.fanout.posts import LOOK_AT_EVERY
from feeds.fanout.slices import NEVER_ENDED, NewSlice, SliceBatch, inserting, of_buckets
from feeds.models import FeedSlice, FeedWindow, SliceKind
from feeds.tests.stage import (
    apply_events,
    end_leases,
    entries,
    follow,
    new_id,
    post,
    settle,
    shown,
    work_off,
)
from outbox.database.round_trips import RoundTrip, send

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_cached_feeds"),
]


def store(*new: NewSlice) -> list[int]:
    before = set(FeedSlice.objects.values_list("id", flat=True))
    for each in new:
        send(RoundTrip(inserting([each])))
    return sorted(set(FeedSlice.objects.values_list("id", flat=True)) - before)


def taken(batch: SliceBatch | None) -> list[int]:
    return [lease.id for lease in batch.leases] if batch else []


class TestWhoComesFirst:
    def test_small_posts_and_every_fifth_time_the_oldest(self) -> None:
        large = store(*of_buckets(SliceKind.POST, "star", 9_000, each=1000))
        other = store(NewSlice(SliceKind.CLEANUP, "bob", follower_id="ann", follow_number=1))
        queue = SliceClaims()
        for _ in range(4):
            [small] = store(NewSlice(SliceKind.POST, "bob", new_id(), size=3))
            assert taken(queue.take()) == [small]
        [small] = store(NewSlice(SliceKind.POST, "bob", new_id(), size=3))
        assert taken(queue.take()) == large[: claims.LARGE_AT_ONCE]
        assert taken(queue.take()) == [small]
        assert taken(queue.take()) == large[2:4]
        FeedSlice.objects.filter(id__in=large).delete()
        assert taken(queue.take()) == other
        assert queue.take() is None

    def test_many_small_ones_of_many_posts_go_into_one_statement(self) -> None:
        for number in range(30):
            follow(f"fan{number}", f"author{number % 3}")
        settle()
        made = [post(f"author{number % 3}") for number in range(12)]
        apply_events()
        batch = SliceClaims().take()
        assert batch is not None
        assert len(batch.leases) == 12
        with CaptureQueriesContext(connection) as captured:
            assert work.apply_batch(batch) == 12
        assert statements(captured, "INSERT INTO feed_entries") == 1
        assert [len(entries(f"fan{number}")) for number in range(30)] == [4] * 30
        assert shown("fan0") == made[::3][::-1]

    def test_one_that_failed_before_goes_alone(self) -> None:
        bad, good = store(*(NewSlice(SliceKind.POST, "bob", new_id()) for _ in range(2)))
        FeedSlice.objects.filter(id=bad).update(tries=1)
        queue = SliceClaims()
        assert taken(queue.take()) == [good]
        batch = queue.take()
        assert batch is not None
        assert (taken(batch), batch.alone) == ([bad], True)

    def test_one_that_ends_its_worker_again_and_again_goes_alone_and_then_fails(self) -> None:
        follow("ann", "bob")
        settle()
        post("bob")
        apply_events()
        for is_alone in [False] * claims.SUSPECT + [True] * (slices.MAX_TRIES + 1):
            batch = SliceClaims().take()
            assert batch is not None
            assert batch.alone is is_alone
            if is_alone:
                begun = slices.begin_alone(batch.leases[0])
            end_leases()  # its worker dies in it
        assert not begun
        [failed] = measuring.failed_slices(10)
        assert failed.error == NEVER_ENDED
        assert SliceClaims().take() is None


@pytest.fixture
def refused() -> Iterator[int]:
    """A post that PostgreSQL takes into nobody's feed."""
    post_id = new_id()
    with connection.cursor() as cursor:
        cursor.execute(
            f"ALTER TABLE feed_entries ADD CONSTRAINT refused CHECK (post_id <> {post_id})"
        )
    yield post_id
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE feed_entries DROP CONSTRAINT IF EXISTS refused")


Refusing = Callable[[int, str], None]


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    """Has PostgreSQL refuse entries of a post with this SQLSTATE."""

    def refuse(post_id: int, state: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                CREATE OR REPLACE FUNCTION refuse_entry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF NEW.post_id = {post_id} THEN
                        RAISE EXCEPTION 'refused' USING ERRCODE = '{state}';
                    END IF;
                    RETURN NEW;
                END $$;
                CREATE OR REPLACE TRIGGER refuse_entry BEFORE INSERT ON feed_entries
                FOR EACH ROW EXECUTE FUNCTION refuse_entry()
                """
            )

    yield refuse
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION IF EXISTS refuse_entry() CASCADE")


class TestASliceThatFails:
    def test_is_found_among_others_and_tried_five_times_alone(self, refused: int) -> None:
        follow("ann", "bob")
        settle()
        good = [post("bob"), post("bob")]
        post("bob", refused)
        apply_events()
        assert work_off() == 2
        assert list(entries("ann")) == good[::-1]
        for tries in range(1, slices.MAX_TRIES):
            assert FeedSlice.objects.get().tries == tries
            assert FeedSlice.objects.get().due_at > timezone.now()  # later, and later
            end_leases()
            work_off()
        failed = FeedSlice.objects.get()
        assert failed.failed_at is not None
        assert "refused" in failed.error
        end_leases()
        assert SliceClaims().take() is None

    @pytest.mark.parametrize(
        ("state", "is_over"),
        [("57014", True), ("57P01", False), ("53100", False), ("58030", False)],
        ids=["took too long", "server stops", "disk is full", "disk fails"],
    )
    def test_only_by_itself_and_not_by_a_server_that_stops_or_is_full(
        self, refusing: Refusing, state: str, is_over: bool
    ) -> None:
        follow("ann", "bob")
        settle()
        made = [post("bob"), post("bob"), post("bob")]
        apply_events()
        refusing(made[1], state)
        for _ in range(4 * slices.MAX_TRIES):
            end_leases()
            work_off()
        assert list(entries("ann")) == [made[2], made[0]]
        left = FeedSlice.objects.get()
        assert (left.failed_at is not None, left.tries) == (is_over, 5 if is_over else 0)
        refusing(0, state)
        measuring.retry(None)
        end_leases()
        settle()
        assert list(entries("ann")) == made[::-1]

    def test_shows_in_the_metric_and_is_retried_by_the_operator(self, refused: int) -> None:
        follow("ann", "bob")
        settle()
        post("bob", refused)
        apply_events()
        for _ in range(slices.MAX_TRIES):
            end_leases()
            work_off()
        before = time.time()
        measuring.measure()
        assert metrics.MEASURED._value.get() >= before
        assert metrics.SLICES_FAILED._value.get() == 1
        assert metrics.SLICES_WAITING._value.get() == 0
        assert metrics.OLDEST_SLICE._value.get() == 0
        assert f"post of post {refused} by bob" in output_of("list")
        with pytest.raises(CommandError, match="Give slice ids"):
            output_of("retry")
        with pytest.raises(CommandError, match="1 of the named slices have not failed"):
            output_of("retry", "1")
        assert output_of("retry", "--all") == "1 slices are tried again.\n"
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE feed_entries DROP CONSTRAINT refused")
        settle()
        assert list(entries("ann")) == [refused]
        assert output_of("list") == "No slice has failed.\n"


def test_the_age_of_the_oldest_open_slice_is_measured() -> None:
    old, young = store(*(NewSlice(SliceKind.POST, "bob", new_id()) for _ in range(2)))
    FeedSlice.objects.filter(id=old).update(created_at=timezone.now() - timedelta(hours=1))
    measuring.measure()
    assert metrics.SLICES_WAITING._value.get() == 2
    assert 3600 <= metrics.OLDEST_SLICE._value.get() < 7200
    FeedSlice.objects.filter(id=old).delete()
    measuring.measure()
    assert 0 <= metrics.OLDEST_SLICE._value.get() < 1800
    assert FeedSlice.objects.get().id == young


def output_of(*arguments: str) -> str:
    out = StringIO()
    call_command("feed_slices", *arguments, stdout=out)
    return out.getvalue()


class TestWindows:
    def test_what_outgrows_its_window_is_trimmed_by_chance(self, settings: Any) -> None:
        """The last of these posts is one after which the windows of its followers are looked at."""
        settings.FEED_WINDOW = 10
        follow("ann", "bob")
        settle()
        made = [post("bob", id_) for id_ in [*unlucky(13, "ann"), lucky("ann")]]
        settle()
        assert list(entries("ann")) == made[:3:-1]
        assert FeedWindow.objects.get(user_id="ann").floor == made[4]
        assert shown("ann") == made[::-1]

    def test_a_backfill_looks_at_the_window(self, settings: Any) -> None:
        settings.FEED_WINDOW = 10
        made = [post(f"author{number % 2}") for number in range(14)]
        follow("ann", "author0", "author1")
        settle()
        assert list(entries("ann")) == made[:3:-1]
        assert shown("ann") == made[::-1]

    def test_below_1_2_times_the_window_nothing_is_done(self, settings: Any) -> None:
        settings.FEED_WINDOW = 10
        made = [post(f"author{number % 2}") for number in range(11)]
        follow("ann", "author0", "author1")
        settle()
        assert list(entries("ann")) == made[::-1]
        assert not FeedWindow.objects.exists()


def unlucky(count: int, user: str) -> list[int]:
    """Ids of posts, in order, none of which has the window of this user looked at."""
    ids = (new_id() for _ in range(1000))
    return list(itertools.islice((id_ for id_ in ids if not is_lucky(id_, user)), count))


def lucky(user: str) -> int:
    """The id of a post that does."""
    return next(id_ for id_ in (new_id() for _ in range(10_000)) if is_lucky(id_, user))


def is_lucky(post_id: int, user: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (hashint8(%s) + (hashtext(%s) & 1023)) & %s = 0",
            (post_id, user, LOOK_AT_EVERY - 1),
        )
        return bool(cursor.fetchone()[0])


class TestTheCaches:
    def test_a_slice_is_not_finished_before_they_confirm(self, settings: Any) -> None:
        follow("ann", "bob")
        settle()
        assert shown("ann") == []  # cached from here on
        new = post("bob")
        apply_events()
        url, settings.FEED_CACHE_URL = settings.FEED_CACHE_URL, "redis://127.0.0.1:1/0"
        assert work_off() == 0
        assert list(entries("ann")) == [new]  # written, and once
        left = FeedSlice.objects.get()
        assert (left.written_at is not None, left.tries) == (True, 0)
        settings.FEED_CACHE_URL = url
        end_leases()
        with CaptureQueriesContext(connection) as captured:
            assert work_off() == 1
        assert statements(captured, "written_at IS NULL AS is_new") == 1
        assert cache.kept_feeds(["ann"])["ann"].ids == [new]

    def test_the_author_sees_his_own_post(self) -> None:
        assert shown("bob") == []
        new = post("bob")
        settle()
        assert shown("bob") == [new]


def statements(captured: CaptureQueriesContext, words: str) -> int:
    return sum(words in query["sql"] for query in captured.captured_queries)
