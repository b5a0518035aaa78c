"""An author grows above the threshold and falls below it, while posts and follows are on their way: his
posts stay in every feed."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import transaction

from devtools.testing.patience import PATIENCE
from feeds.fanout import modes, work
from feeds.models import AuthorMode, FeedAuthor, FeedEntry, FeedSlice, SliceKind
from feeds.tests.stage import (
    Other,
    apply_events,
    assert_feeds_are_the_truth,
    claim,
    entries,
    follow,
    held_open,
    post,
    settle,
    shown,
    truth,
    unfollow,
    work_off,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_cached_feeds"),
]


@pytest.fixture
def fans(settings: Any) -> list[str]:
    """The followers of `star`, so many that he is merged at read."""
    settings.FEED_MERGE_FOLLOWERS = 4
    names = [f"fan{number}" for number in range(4)]
    for name in names:
        follow(name, "star")
    settle()
    return names


def mode() -> str:
    return str(FeedAuthor.objects.get(author_id="star").mode)


def lose_three(fans: list[str]) -> None:
    """The last one stays, which is less than half of the threshold."""
    for fan in fans[:3]:
        unfollow(fan, "star")


def test_one_unfollow_at_the_threshold_changes_nothing(fans: list[str]) -> None:
    before = post("star")
    settle()
    assert mode() == AuthorMode.MERGED
    unfollow(fans[0], "star")
    settle()
    assert mode() == AuthorMode.MERGED
    unfollow(fans[1], "star")
    settle()
    assert mode() == AuthorMode.MERGED  # two are half of it, not below
    assert not FeedEntry.objects.exists()
    assert shown(fans[3]) == [before]
    assert_feeds_are_the_truth(*fans)


def test_below_half_of_it_posts_are_stored_again_behind_a_backfill(fans: list[str]) -> None:
    merged = [post("star") for _ in range(3)]
    settle()
    lose_three(fans)
    apply_events()
    assert mode() == AuthorMode.STORING
    assert shown(fans[3]) == merged[::-1]
    new = post("star")
    apply_events()
    assert FeedSlice.objects.filter(kind=SliceKind.POST, bucket_to__gt=0).count() == 1
    settle()
    assert mode() == AuthorMode.STORED
    assert list(entries(fans[3])) == [new, *merged[::-1]]
    assert_feeds_are_the_truth(*fans)


def test_a_post_is_cut_while_the_mode_changes(fans: list[str]) -> None:
    """It was cut for nobody, because its author was merged then; who fills the followers behind the
    change sees it."""
    lose_three(fans)
    new = post("star")
    with held_open(lambda: apply_events("POST_CREATED")):
        Other(lambda: apply_events("UNFOLLOWED")).join()
        work_off()
    settle()
    assert mode() == AuthorMode.STORED
    assert list(entries(fans[3])) == [new]
    assert_feeds_are_the_truth(*fans)


def test_a_post_that_is_not_cut_yet_when_the_author_is_stored_again(fans: list[str]) -> None:
    """Readers saw it while they merged; they must not lose it until it is cut."""
    lose_three(fans)
    apply_events()
    work.apply_batch(claim(SliceKind.STORING))
    late = post("star")
    assert shown(fans[3]) == [late]
    work.apply_batch(claim(SliceKind.STORED))
    assert mode() == AuthorMode.STORED
    assert shown(fans[3]) == [late]
    settle()
    assert_feeds_are_the_truth(*fans)


def test_many_posts_that_are_not_cut_yet_go_first(
    fans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "LAST_ENTRIES", 2)
    lose_three(fans)
    apply_events()
    work.apply_batch(claim(SliceKind.STORING))
    for _ in range(3):
        post("star")
    work.apply_batch(claim(SliceKind.STORED))
    assert mode() == AuthorMode.STORING
    assert not FeedSlice.objects.filter(kind=SliceKind.STORING).exists()  # nobody is filled twice
    settle()
    assert mode() == AuthorMode.STORED
    assert_feeds_are_the_truth(*fans)


def test_who_posts_all_the_time_is_stored_all_the_same(
    fans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """His posts of the last minute are stored already, but for the one that is not cut yet."""
    monkeypatch.setattr(modes, "LAST_ENTRIES", 2)
    lose_three(fans)
    apply_events()
    for _ in range(5):
        post("star")
        apply_events()
        work.apply_batch(claim(SliceKind.POST))
    work.apply_batch(claim(SliceKind.STORING))
    late = post("star")
    work.apply_batch(claim(SliceKind.STORED))
    assert mode() == AuthorMode.STORED
    assert shown(fans[3])[0] == late
    assert list(entries(fans[3])) == truth(fans[3])
    settle()
    assert_feeds_are_the_truth(*fans)


def test_the_last_step_waits_for_the_others(fans: list[str]) -> None:
    old = post("star")
    settle()
    lose_three(fans)
    apply_events()
    filling = claim(SliceKind.STORING)
    work_off()
    assert mode() == AuthorMode.STORING
    work.apply_batch(filling)
    settle()
    assert mode() == AuthorMode.STORED
    assert shown(fans[3]) == [old]
    assert_feeds_are_the_truth(*fans)


def test_who_grows_again_meanwhile_is_merged_and_no_late_piece_stores_him(fans: list[str]) -> None:
    lose_three(fans)
    apply_events()
    filling, last = claim(SliceKind.STORING), claim(SliceKind.STORED)
    for fan in fans[:3]:
        follow(fan, "star")
    apply_events()
    assert mode() == AuthorMode.MERGED
    new = post("star")
    settle()
    for batch in (filling, last):
        work.apply_batch(batch)
    assert mode() == AuthorMode.MERGED
    assert [shown(fan) for fan in fans] == [[new]] * 4
    assert_feeds_are_the_truth(*fans)


def test_who_grows_and_falls_again_while_the_last_step_waits(fans: list[str]) -> None:
    """It waits for the author's row through both changes: the pieces that fill behind the second one are
    not done, and what was posted between the two is in nobody's entries."""
    lose_three(fans)
    apply_events()
    work.apply_batch(claim(SliceKind.STORING))
    last = claim(SliceKind.STORED)
    for fan in fans[:3]:
        follow(fan, "star")
    lose_three(fans)
    may_commit = threading.Event()

    def fall() -> None:
        with transaction.atomic():
            apply_events("UNFOLLOWED")
            assert may_commit.wait(PATIENCE)

    with held_open(lambda: apply_events("FOLLOWED")) as growing:
        falling = Other(fall)
        assert falling.stands()
        storing = Other(lambda: work.apply_batch(last))
        assert storing.stands()
        growing.commit()
        assert mode() == AuthorMode.MERGED
        between = post("star")
        apply_events("POST_CREATED")
        work.apply_batch(claim(SliceKind.POST))
        may_commit.set()
        falling.join()
        storing.join()
    assert mode() == AuthorMode.STORING
    assert shown(fans[3]) == [between]
    settle()
    assert_feeds_are_the_truth(*fans)


def test_a_follow_of_a_merged_author_is_backfilled_when_he_is_stored_again(fans: list[str]) -> None:
    """Its own backfill writes nothing, because he is merged."""
    old = post("star")
    follow("late", "star")
    settle()
    assert entries("late") == {}
    for fan in fans:
        unfollow(fan, "star")
    settle()
    assert mode() == AuthorMode.STORED
    assert list(entries("late")) == [old]
    assert_feeds_are_the_truth("late", *fans)


def test_back_and_forth(fans: list[str]) -> None:
    for _ in range(3):
        post("star")
        lose_three(fans)
        post("star")
        apply_events()
        for fan in fans[:3]:
            follow(fan, "star")
        post("star")
        apply_events()
        work_off()
        assert [shown(fan) for fan in fans] == [truth(fan) for fan in fans]
    settle()
    assert_feeds_are_the_truth(*fans)
