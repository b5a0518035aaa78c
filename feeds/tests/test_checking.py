"""check_feeds and rebuild_feeds: what is a difference, what is owed, what is litter, and repair."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from feeds import cache
from feeds.checking.cached import compare_cached
from feeds.checking.compare import FeedComparison
from feeds.checking.rebuild import all_users, rebuild, sampled_users
from feeds.models import FeedEntry, FeedSlice, FeedWindow, Follow
from feeds.reading.pages import pages
from feeds.reading.questions import FeedQuestion
from feeds.tests.stage import (
    Other,
    apply_events,
    delete,
    entries,
    follow,
    held_open,
    number_of,
    post,
    settle,
    shown,
    truth,
    unfollow,
)
from restapi.lookup import run

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_cached_feeds"),
]


def check(*arguments: str) -> str:
    out = StringIO()
    call_command("check_feeds", *arguments, stdout=out)
    return out.getvalue()


def differs(*arguments: str) -> str:
    """What it says of a difference; it must find one."""
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("check_feeds", *arguments, stdout=out)
    return out.getvalue()


def entry(user: str, post_id: int, author: str, number: int) -> None:
    FeedEntry.objects.create(user_id=user, post_id=post_id, author_id=author, follow_number=number)


@pytest.fixture
def posted() -> list[int]:
    """Three posts of bob, whom ann and eve follow; newest first."""
    follow("ann", "bob")
    follow("eve", "bob")
    ids = [post("bob") for _ in range(3)]
    settle()
    return ids[::-1]


def test_nothing_differs(posted: list[int]) -> None:
    assert shown("ann") == posted
    output = check()
    assert "2 users: 6 entries are right, 0 are litter" in output
    assert "1 cached feeds compared" in output
    assert output.endswith("All feeds equal the truth.\n")


def test_what_is_missing(posted: list[int]) -> None:
    FeedEntry.objects.filter(user_id="ann", post_id=posted[1]).delete()
    assert f"ann: post {posted[1]} by bob is missing" in differs()
    assert "All feeds equal" in check("--user", "eve")
    assert "ann was" not in differs("--user", "ann", "--repair")
    assert "All feeds equal" in check()
    assert list(entries("ann")) == posted


def test_what_is_wrong(posted: list[int]) -> None:
    """An entry that readers show, of a post that is not the author's."""
    other = post("carl")
    settle()
    entry("ann", other, "bob", number_of("ann", "bob"))
    assert f"ann: post {other} by bob is wrong" in differs("--repair")
    assert "All feeds equal" in check()


def test_what_open_work_owes_is_no_difference(posted: list[int]) -> None:
    post("bob")
    assert "2 are owed by open work" in check()  # by the event
    apply_events()
    assert "2 are owed by open work" in check()  # by the slice
    FeedSlice.objects.all().delete()
    assert differs().count("is missing") == 2


def test_litter_is_counted_and_deleted_by_repair(posted: list[int]) -> None:
    FeedWindow.objects.create(user_id="ann", floor=posted[1])  # posted[2] lies below it
    delete(posted[0])
    entry("eve", post("carl"), "carl", 1)  # whom she does not follow
    unfollow("eve", "bob")
    assert "1 entries are right, 6 are litter" in check("--repair")
    assert "2 entries are right, 0 are litter" in check()
    settle()
    assert shown("ann") == truth("ann") == posted[1:]


def test_a_cached_feed_that_is_wrong(posted: list[int]) -> None:
    assert shown("ann") == posted
    new = post("bob")
    settle()
    assert "All feeds equal" in check()
    kept = cache.kept_feeds(["ann"])["ann"]
    # As a slice would leave it that was finished before Redis had heard of it.
    key = next(key for key in _keys() if key.endswith(":ann"))
    cache.ask(("SET", key, kept.value.replace(new.to_bytes(8, "big"), b""), "KEEPTTL"))
    assert f"ann: post {new} is missing in the cache" in differs("--repair")
    assert "All feeds equal" in check()
    assert shown("ann") == [new, *posted]


def test_a_cached_feed_with_a_post_of_somebody_else(posted: list[int]) -> None:
    other = post("carl")
    settle()
    assert shown("ann") == posted
    kept = cache.kept_feeds(["ann"])["ann"]
    [key] = _keys()
    cache.ask(("SET", key, kept.value + other.to_bytes(8, "big"), "KEEPTTL"))
    assert f"ann: post {other} by carl is wrong in the cache" in differs("--repair")
    assert "All feeds equal" in check()
    assert shown("ann") == posted


def test_what_is_committed_while_it_runs_is_not_compared(
    posted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A post is written and cached between the look into Redis and the look at the posts."""
    assert shown("ann") == posted
    look = cache.kept_feeds

    def slowly(users: Any) -> Any:
        found = look(users)
        Other(post_and_settle).join()
        return found

    def post_and_settle() -> None:
        post("bob")
        settle()

    monkeypatch.setattr(cache, "kept_feeds", slowly)
    assert "All feeds equal" in check()


def test_a_cached_feed_that_has_seen_what_the_check_does_not(posted: list[int]) -> None:
    """Though its snapshot ends at the same transaction: one that was running has committed."""
    found = FeedComparison()
    with held_open(lambda: delete(posted[0])) as held:
        post("zoe")
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                cursor.execute("SELECT FROM posts LIMIT 1")
            held.commit()
            assert Other(lambda: shown("ann")).join() == posted[1:]
            assert compare_cached(["ann"], found) == ["ann"]
    assert (found.differences, found.counts) == ([], {})


def test_a_cached_feed_of_who_follows_nobody(posted: list[int]) -> None:
    """Of his own posts, or of none."""
    own = post("solo")
    settle()
    assert (shown("solo"), shown("nobody")) == ([own], [])
    assert "2 cached feeds compared, 0 not" in check()
    key = next(key for key in _keys() if key.endswith(":solo"))
    kept = cache.kept_feeds(["solo"])["solo"]
    cache.ask(("SET", key, kept.value.replace(own.to_bytes(8, "big"), b""), "KEEPTTL"))
    assert f"solo: post {own} is missing in the cache" in differs("--repair")
    assert "1 cached feeds compared, 0 not" in check()
    assert shown("solo") == [own]


def test_more_cached_feeds_than_redis_names_at_once() -> None:
    readers = {f"of:{number}" for number in range(1100)}
    run(pages([FeedQuestion(each, 20) for each in readers], deep=True), redis=cache.replies)
    assert cache.cached_users() == readers
    assert "1100 cached feeds compared, 0 not" in check()


@pytest.mark.parametrize("times", [1, 2])
def test_a_cached_feed_that_is_filled_while_it_runs(
    posted: list[int], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """It is compared in a snapshot of its own; if it is filled once more behind that, it is counted."""
    look, left = cache.kept_feeds, [post("bob") for _ in range(times)]
    shown("ann")
    settle()

    def behind_a_fill(users: Any) -> Any:
        if left:
            Other(lambda: deleted_and_shown(left.pop())).join()
        return look(users)

    def deleted_and_shown(post_id: int) -> None:
        delete(post_id)
        cache.touch_users(["ann"])
        shown("ann")

    monkeypatch.setattr(cache, "kept_feeds", behind_a_fill)
    output = check()
    assert f"{2 - times} cached feeds compared, {times - 1} not" in output
    assert ("1 cached feeds were not compared: they were filled" in output) == (times == 2)


def test_a_cached_feed_that_no_reader_believes(posted: list[int]) -> None:
    shown("ann")
    unfollow("ann", "bob")
    output = check()
    assert "0 cached feeds compared, 0 not" in output
    assert "1 cached feeds are older than a change of theirs" in output


def _keys() -> list[str]:
    return [key.decode() for key in cache.ask(("KEYS", "feed:*"))]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check_feeds", "--user", ""),
        ("check_feeds", "--user", "a/b"),
        ("check_feeds", "--sample", "-1"),
        ("check_feeds", "--sample", "many"),
        ("rebuild_feeds", "--user", ""),
        ("feed_slices", "list", "--limit", "-1"),
    ],
    ids=range(6),
)
def test_arguments_that_are_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match="is not a "):
        call_command(*arguments)


def test_somebody_of_whom_nothing_is_known(posted: list[int]) -> None:
    assert "User 'amn' has no post" in check("--user", "amn")
    assert "Nothing" not in check("--user", "bob")


@pytest.mark.parametrize("command", ["check_feeds", "rebuild_feeds"])
def test_without_the_cache_it_is_to_be_run_again(
    posted: list[int], command: str, settings: Any
) -> None:
    settings.FEED_CACHE_URL = "redis://127.0.0.1:1/0"  # nobody listens there
    with pytest.raises(CommandError, match="Run the command again when it answers"):
        call_command(command, stdout=StringIO())


class TestRebuild:
    def test_from_the_posts_alone(self, posted: list[int]) -> None:
        FeedEntry.objects.all().delete()
        entry("joe", posted[0], "bob", 99)
        out = StringIO()
        call_command("rebuild_feeds", stdout=out)
        assert out.getvalue() == "3 users have 6 rebuilt entries.\n"
        assert list(entries("ann")) == list(entries("eve")) == posted
        assert entries("joe") == {}

    def test_of_one_user(self, posted: list[int]) -> None:
        FeedEntry.objects.all().delete()
        call_command("rebuild_feeds", "--user", "ann", stdout=StringIO())
        assert list(entries("ann")) == posted
        assert entries("eve") == {}

    def test_lowers_a_floor_or_takes_it_away(self, posted: list[int], settings: Any) -> None:
        FeedWindow.objects.create(user_id="ann", floor=posted[0])
        settings.FEED_WINDOW = 10
        more = [post("bob") for _ in range(9)]
        settle()
        rebuild(["ann", "eve"])
        newest = [*more[::-1], posted[0]]
        assert FeedWindow.objects.get(user_id="eve").floor == posted[0]
        assert list(entries("ann")) == list(entries("eve")) == newest
        settings.FEED_WINDOW = 50
        rebuild(["ann"])
        assert not FeedWindow.objects.filter(user_id="ann").exists()
        assert shown("ann") == truth("ann")

    def test_pages_stay_right_while_it_runs(self, posted: list[int]) -> None:
        with held_open(lambda: rebuild(["ann"])):
            assert shown("ann") == posted
            delete(posted[0])
            assert shown("ann") == posted[1:]
        assert shown("ann") == posted[1:]

    def test_a_follow_that_waits_for_its_backfill_is_backfilled_by_it(self) -> None:
        follow("ann", "bob")
        first = post("bob")
        rebuild(["ann"])
        assert Follow.objects.get().backfilled
        assert list(entries("ann")) == [first]
        settle()
        assert "All feeds equal" in check()

    def test_a_follow_that_began_meanwhile_is_not_backfilled_by_it(self) -> None:
        """It is another one than that whose entries were written."""
        follow("ann", "bob")
        first = post("bob")

        def again() -> None:
            unfollow("ann", "bob")
            follow("ann", "bob")

        with held_open(again) as held:
            rebuilding = Other(lambda: rebuild(["ann"]))
            assert rebuilding.stands()
            held.commit()
            rebuilding.join()
        assert not Follow.objects.get().backfilled
        assert shown("ann") == [first]
        settle()
        assert list(entries("ann").items()) == [(first, number_of("ann", "bob"))]

    def test_everybody_who_follows_or_has_entries(self) -> None:
        for number in range(45):
            follow(f"user{number:02}", "bob")
        entry("zoe", 2, "bob", 1)
        FeedWindow.objects.create(user_id="aaron", floor=1)
        with transaction.atomic():
            batches = list(all_users(20))
        assert [len(batch) for batch in batches] == [20, 20, 7]
        assert [user for batch in batches for user in batch] == [
            "aaron",
            *(f"user{number:02}" for number in range(45)),
            "zoe",
        ]

    def test_a_sample(self) -> None:
        for number in range(30):
            follow(f"user{number:02}", "bob", "carl")
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE follows")
        some = sampled_users(7)
        assert len(set(some)) == 7
        assert set(some) <= {f"user{number:02}" for number in range(30)}
        assert "7 users: 0 entries" in check("--sample", "7")
