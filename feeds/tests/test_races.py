"""Interleavings that lose a post, or bring one back, where a guard is missing. Transactions of other
connections are held open at the place where it counts."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from feeds import cache
from feeds.checking.rebuild import rebuild
from feeds.fanout import follows, posts, work
from feeds.fanout.slices import NewSlice, SliceBatch, finish, inserting
from feeds.fanout.trimming import trim
from feeds.models import FeedEntry, FeedSlice, FeedWindow, SliceKind
from feeds.tests.stage import (
    Other,
    apply_events,
    assert_feeds_are_the_truth,
    claim,
    compare,
    delete,
    end_leases,
    entries,
    follow,
    held_open,
    new_id,
    number_of,
    post,
    settle,
    settle_all_but,
    shown,
    unfollow,
    work_off,
)
from outbox.database.round_trips import RoundTrip, send

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_cached_feeds"),
]


@pytest.fixture
def followed() -> None:
    """ann follows bob, and nothing is left to do."""
    follow("ann", "bob")
    settle()


def cut(author: str) -> tuple[int, SliceBatch]:
    """A new post of this author, and its slices, held."""
    made = post(author)
    apply_events()
    return made, claim(SliceKind.POST)


class TestAPostAndAFollow:
    def test_a_post_is_committed_while_a_follow_is_open(self) -> None:
        """The slice does not see the follow; the backfill behind it sees the post."""
        with held_open(lambda: follow("ann", "bob")):
            first = post("bob")
            settle()
        assert shown("ann") == [first]
        settle()
        assert list(entries("ann")) == [first]
        assert_feeds_are_the_truth("ann")

    def test_a_follow_is_committed_while_a_post_is_open(self) -> None:
        """The backfill does not see the post; its slice sees the follow."""
        with held_open(lambda: post("bob")) as held:
            follow("ann", "bob")
            settle()
            assert shown("ann") == []
        settle()
        assert list(entries("ann")) == [held.result]
        assert_feeds_are_the_truth("ann")

    def test_a_post_is_committed_while_its_backfill_is_open(self) -> None:
        follow("ann", "bob")
        apply_events()
        batch = claim(SliceKind.BACKFILL)
        with held_open(lambda: follows.backfill(batch)):
            first = post("bob")
            assert shown("ann") == [first]  # merged: the backfill has not committed
            apply_events()
            work_off()
        assert shown("ann") == [first]
        assert_feeds_are_the_truth("ann")

    def test_a_follow_shows_everything_before_anything_is_applied(self) -> None:
        posted = [post("bob") for _ in range(3)]
        follow("ann", "bob")
        assert shown("ann") == posted[::-1]
        assert entries("ann") == {}
        settle()
        assert list(entries("ann")) == posted[::-1]
        assert_feeds_are_the_truth("ann")


class TestUnfollowAndFollowAgain:
    @pytest.mark.parametrize("order", ["clean-up first", "backfill first"])
    def test_before_the_clean_up_runs(self, order: str) -> None:
        follow("ann", "bob")
        posted = [post("bob") for _ in range(3)]
        settle()
        unfollow("ann", "bob")
        assert shown("ann") == []
        follow("ann", "bob")
        assert shown("ann") == posted[::-1]
        apply_events()
        cleanup, backfill = claim(SliceKind.CLEANUP), claim(SliceKind.BACKFILL)
        both = [cleanup, backfill] if order == "clean-up first" else [backfill, cleanup]
        for batch in both:
            work.apply_batch(batch)
        assert entries("ann") == dict.fromkeys(posted[::-1], number_of("ann", "bob"))
        assert_feeds_are_the_truth("ann")

    def test_a_clean_up_that_names_the_active_follow_leaves_its_entries(self) -> None:
        """Another producer has written its event, or a database that was set back has forgotten it."""
        follow("ann", "bob")
        posted = [post("bob") for _ in range(3)]
        settle()
        clean_up_of("ann", "bob", number_of("ann", "bob") + 10)
        settle()
        assert list(entries("ann")) == posted[::-1]
        assert_feeds_are_the_truth("ann")

    def test_such_a_clean_up_while_the_follow_begins(self) -> None:
        """It stands at the pair, and must not go by what it read before."""
        follow("ann", "bob")
        posted = [post("bob") for _ in range(3)]
        settle()
        unfollow("ann", "bob")
        clean_up_of("ann", "bob", number_of("ann", "bob") + 10)
        batch = claim(SliceKind.CLEANUP)

        def again() -> SliceBatch:
            follow("ann", "bob")
            apply_events("FOLLOWED")
            backfill = claim(SliceKind.BACKFILL)
            follows.backfill(backfill)
            return backfill

        with held_open(again) as held:
            late = Other(lambda: follows.clean_up(batch))
            assert late.stands()
            held.commit()
            late.join()
        finish([*batch.leases, *held.result.leases])
        settle()
        assert list(entries("ann")) == posted[::-1]
        assert_feeds_are_the_truth("ann")

    def test_while_the_clean_up_is_open(self) -> None:
        """It deletes entries that the backfill writes anew, and the row of the pair, which is followed
        again."""
        follow("ann", "bob")
        first = post("bob")
        settle()
        unfollow("ann", "bob")
        apply_events()
        batch = claim(SliceKind.CLEANUP)
        with held_open(lambda: follows.clean_up(batch)):
            again = Other(lambda: follow("ann", "bob"))
            again.stands()
        again.join()
        finish(batch.leases)
        assert shown("ann") == [first]
        settle()
        assert_feeds_are_the_truth("ann")

    @pytest.mark.usefixtures("followed")
    def test_a_slice_is_written_for_the_first_follow_behind_the_second_one(self) -> None:
        """What the slice read is old: the entry stays the later follow's."""
        first, batch = cut("bob")
        with held_open(lambda: posts.write_entries(batch)):
            unfollow("ann", "bob")
            follow("ann", "bob")
            apply_events()
            backfill = claim(SliceKind.BACKFILL)
        follows.backfill(backfill)
        finish([*batch.leases, *backfill.leases])
        settle()
        assert entries("ann") == {first: number_of("ann", "bob")}
        assert_feeds_are_the_truth("ann")

    def test_a_follow_begins_anew_while_a_slice_stands(self) -> None:
        """The slice has read the first follow, and comes to write it when the second one's backfill has
        long committed: the entry stays the second one's."""
        first, second = _by_bucket("ann", "eve")
        for name in (first, second):
            follow(name, "bob")
        settle()
        new, batch = cut("bob")
        with held_open(lambda: entry(first, new, "bob")):
            late = Other(lambda: posts.write_entries(batch))
            assert late.stands()  # at the first of its followers
            unfollow(second, "bob")
            follow(second, "bob")
            settle_all_but(batch)
            assert entries(second) == {new: number_of(second, "bob")}
        late.join()
        finish(batch.leases)
        assert entries(second) == {new: number_of(second, "bob")}
        assert_feeds_are_the_truth(first, second)


def clean_up_of(follower: str, author: str, number: int) -> None:
    slice_ = NewSlice(SliceKind.CLEANUP, author, follower_id=follower, follow_number=number)
    send(RoundTrip(inserting([slice_])))


def _by_bucket(*names: str) -> list[str]:
    """As a slice comes to them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM unnest(%s::text[]) AS name ORDER BY hashtext(name) & 1023",
            ([*names],),
        )
        return [row[0] for row in cursor.fetchall()]


def entry(user: str, post_id: int, author: str) -> None:
    FeedEntry.objects.create(
        user_id=user, post_id=post_id, author_id=author, follow_number=number_of(user, author)
    )


class TestFloors:
    @pytest.fixture(autouse=True)
    def trimmed_by_the_test(self, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
        """Which entries have a window looked at is chance."""
        monkeypatch.setattr(work, "trim", len)
        settings.FEED_WINDOW = 10

    @pytest.fixture
    def late(self) -> tuple[int, SliceBatch]:
        """A post of carl with its slice, held, and above it more than a window of others."""
        follow("ann", "bob", "carl")
        settle()
        late, batch = cut("carl")
        for _ in range(12):
            post("bob")
        settle_all_but(batch)
        return late, batch

    def test_a_late_slice_below_a_trimmed_floor_writes_nothing(
        self, late: tuple[int, SliceBatch]
    ) -> None:
        below, batch = late
        assert trim(["ann"]) == 2
        assert FeedWindow.objects.get(user_id="ann").floor > below
        assert work.apply_batch(batch) == 1
        assert below not in entries("ann")
        assert_feeds_are_the_truth("ann")

    def test_a_slice_that_is_open_while_its_floor_is_raised(
        self, late: tuple[int, SliceBatch]
    ) -> None:
        """What it writes below is litter: readers take what is below from the posts, once."""
        below, batch = late
        with held_open(lambda: posts.write_entries(batch)):
            assert trim(["ann"]) == 2
        finish(batch.leases)
        assert below in entries("ann")
        assert compare().counts["litter"] == 1
        assert_feeds_are_the_truth("ann")

    def test_a_backfill_of_more_than_a_window_raises_the_floor(self) -> None:
        follow("ann", "carl")
        old = post("carl")
        posted = [post("bob") for _ in range(15)]
        settle()
        follow("ann", "bob")
        settle()
        assert FeedWindow.objects.get(user_id="ann").floor == posted[5]
        assert old in entries("ann")  # not read: below the floor
        assert_feeds_are_the_truth("ann")

    def test_a_rebuild_lowers_a_floor_while_a_slice_goes_by_the_old_one(self) -> None:
        """The slice leaves out a post below the floor. A rebuild that had begun before the post
        committed, and lowered the floor, would leave it out too."""
        follow("ann", "bob", "carl")
        settle()
        low = new_id()
        posted = [post("bob") for _ in range(3)]
        settle()
        FeedWindow.objects.create(user_id="ann", floor=posted[0])
        with held_open(lambda: rebuild(["ann"])):
            post("carl", low)
            apply_events()
            batch = claim(SliceKind.POST)
            writing = Other(lambda: posts.write_entries(batch))
            writing.stands()
        writing.join()
        finish(batch.leases)
        assert not FeedWindow.objects.filter(user_id="ann").exists()
        assert list(entries("ann")) == [*posted[::-1], low]
        assert_feeds_are_the_truth("ann")


@pytest.mark.usefixtures("followed")
class TestWhileASliceIsWritten:
    def test_its_post_is_deleted(self) -> None:
        gone, batch = cut("bob")
        with held_open(lambda: posts.write_entries(batch)):
            delete(gone)
        finish(batch.leases)
        assert gone in entries("ann")
        assert shown("ann") == []
        settle()
        assert entries("ann") == {}
        assert_feeds_are_the_truth("ann")

    def test_its_author_is_unfollowed(self) -> None:
        hidden, batch = cut("bob")
        with held_open(lambda: posts.write_entries(batch)):
            unfollow("ann", "bob")
            settle_all_but(batch)
        finish(batch.leases)
        assert hidden in entries("ann")  # litter: the clean-up has run before it was committed
        assert shown("ann") == []
        assert compare().counts["litter"] == 1
        follow("ann", "bob")
        settle()
        assert_feeds_are_the_truth("ann")

    def test_a_post_that_is_deleted_before_comes_into_no_feed(self) -> None:
        gone = post("bob")
        apply_events()
        delete(gone)
        work_off()
        assert entries("ann") == {}


@pytest.mark.usefixtures("followed")
class TestAWorkerThatDies:
    def test_between_entries_and_cache(self) -> None:
        """The slice stays until the cache has heard of it, from another worker."""
        assert shown("ann") == []  # cached from here on
        new, batch = cut("bob")
        posts.write_entries(batch)  # and then it is killed
        assert cache.kept_feeds(["ann"])["ann"].ids == []
        end_leases()
        assert work_off() == 1
        assert cache.kept_feeds(["ann"])["ann"].ids == [new]
        assert_feeds_are_the_truth("ann")

    def test_a_frozen_one_wakes_late(self) -> None:
        """It applies its slice a second time, when the follow is another one and the post is gone:
        nothing that is not true comes of it."""
        follow("eve", "bob")
        settle()
        kept, gone = post("bob"), post("bob")
        apply_events()
        late = claim(SliceKind.POST)
        written = posts.write_entries(late)
        end_leases()
        assert work_off() == 2
        delete(gone)
        unfollow("ann", "bob")
        settle()
        assert shown("ann") == []
        assert shown("eve") == [kept]
        assert work._confirm(late, written) == 0
        assert FeedSlice.objects.count() == 0
        assert shown("ann") == []
        assert shown("eve") == [kept]
        assert posts.write_entries(late).entries == []
        assert_feeds_are_the_truth("ann", "eve")

    def test_a_slice_that_is_applied_twice(self) -> None:
        new, batch = cut("bob")
        first, second = posts.write_entries(batch), posts.write_entries(batch)
        assert first.entries == second.entries  # the cache hears of it both times
        assert entries("ann") == {new: number_of("ann", "bob")}
        finish(batch.leases)
        assert_feeds_are_the_truth("ann")
