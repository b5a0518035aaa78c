"""Kept numbers of followers that have gone wrong: check_feeds finds them, and counts anew."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from feeds.checking.followers import WrongCount, recount, wrong_counts
from feeds.events import Unfollowed
from feeds.fanout.handlers import count_follows
from feeds.models import AuthorMode, FeedAuthor
from feeds.tests.stage import (
    Other,
    apply_events,
    entries,
    envelopes,
    follow,
    held_open,
    number_of,
    post,
    settle,
    shown,
    unfollow,
)
from feeds.tests.test_handlers import follow_event
from outbox.inbox import receipts
from outbox.models import InboxReceipt

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_cached_feeds"),
]

# As docs/operations.md has it, behind a restore.
FORGET_RECEIPTS = """
    DELETE FROM inbox_receipt receipt WHERE handler IN ('cut_posts', 'count_follows')
    AND NOT EXISTS (SELECT FROM event_outbox event WHERE event.event_id = receipt.event_id)
"""
FANS = [f"fan{number}" for number in range(4)]


@pytest.fixture
def followed() -> None:
    """Four follow bob, and it is counted."""
    for fan in FANS:
        follow(fan, "bob")
    settle()


def count() -> int:
    return int(FeedAuthor.objects.get(author_id="bob").followers)


def check(*arguments: str) -> str:
    out = StringIO()
    call_command("check_feeds", *arguments, stdout=out)
    return out.getvalue()


def counted_twice() -> None:
    """Another producer tells again what was told."""
    with transaction.atomic():
        count_follows(envelopes("FOLLOWED"))


@pytest.mark.usefixtures("followed")
@pytest.mark.parametrize("whose", [(), ("--user", "bob")], ids=["all", "one"])
def test_a_wrong_number_is_a_difference_and_is_counted_anew(whose: tuple[str, ...]) -> None:
    counted_twice()
    assert count() == 8
    out = StringIO()
    with pytest.raises(CommandError, match=r"^1 differences"):
        call_command("check_feeds", *whose, "--repair", stdout=out)
    assert "bob: 8 followers are counted, and 4 should be" in out.getvalue()
    assert "The followers of 1 users were recounted" in out.getvalue()
    assert count() == 4
    assert "All feeds equal" in check(*whose)


@pytest.mark.usefixtures("followed")
def test_what_events_will_still_add_is_no_difference() -> None:
    follow("late", "bob")
    unfollow(FANS[0], "bob")
    unfollow(FANS[1], "bob")
    assert wrong_counts() == wrong_counts(["bob"]) == []
    FeedAuthor.objects.update(followers=9)
    assert wrong_counts() == wrong_counts(["bob"]) == [WrongCount("bob", 9, 4)]
    recount(["bob"])
    assert count() == 4
    apply_events()
    assert count() == 3


@pytest.mark.usefixtures("followed")
def test_an_event_that_waits_as_a_dead_letter_is_owed_until_it_is_discarded() -> None:
    follow("late", "bob")
    [event] = envelopes("FOLLOWED")[-1:]
    receipt = InboxReceipt.objects.create(
        event_id=event.event_id, handler="count_follows", outcome=InboxReceipt.Outcome.PARKED
    )
    assert wrong_counts() == []
    receipt.outcome = InboxReceipt.Outcome.DISCARDED
    receipt.save()
    assert wrong_counts() == [WrongCount("bob", 4, 5)]


@pytest.mark.usefixtures("followed")
def test_an_author_without_a_number_and_one_without_followers() -> None:
    FeedAuthor.objects.all().delete()
    FeedAuthor.objects.create(author_id="gone", followers=3)
    assert wrong_counts() == [WrongCount("bob", 0, 4), WrongCount("gone", 3, 0)]
    recount(["bob", "gone", "nobody"])
    assert wrong_counts() == []


@pytest.mark.usefixtures("followed")
def test_a_handler_that_is_at_work_meanwhile_is_waited_for() -> None:
    """What it adds is in the number when it is counted, and its receipt with it."""
    follow("late", "bob")
    counted_twice()
    with held_open(lambda: apply_events("FOLLOWED")) as handler:
        counting = Other(lambda: recount(["bob"]))
        assert counting.stands()
        handler.commit()
        counting.join()
    assert count() == 5


@pytest.mark.usefixtures("followed")
@pytest.mark.parametrize("forgotten", [False, True], ids=["with its receipt", "without it"])
def test_an_unfollow_that_a_database_set_back_has_forgotten(forgotten: bool) -> None:
    """Read once more it changes nothing, and has a receipt. The follow ends again, with an event of the
    same id: it is dropped as long as the receipt is there, and check_feeds finds what it would have done."""
    first = post("bob")
    settle()
    event = follow_event(Unfollowed.of("fan0", "bob", number_of("fan0", "bob"), 0))
    with transaction.atomic():
        receipts.insert_receipts("count_follows", [event.event_id])
        count_follows([event])
    assert (count(), list(entries("fan0"))) == (4, [first])
    if forgotten:
        with connection.cursor() as cursor:
            cursor.execute(FORGET_RECEIPTS)
            assert cursor.rowcount == 1
    unfollow("fan0", "bob")
    settle()
    assert shown("fan0") == []
    assert (count(), list(entries("fan0"))) == ((3, []) if forgotten else (4, [first]))
    if not forgotten:
        with pytest.raises(CommandError, match=r"^1 differences"):
            check("--repair")
    assert " 3 entries are right, 0 are litter" in check()
    assert count() == 3


def test_the_mode_follows_from_the_right_number(settings: Any) -> None:
    settings.FEED_MERGE_FOLLOWERS = 5
    for fan in FANS[:2]:
        follow(fan, "bob")
    settle()
    for _ in range(2):
        counted_twice()
    first = post("bob")
    settle()
    assert FeedAuthor.objects.get(author_id="bob").mode == AuthorMode.MERGED
    assert entries(FANS[0]) == {}
    with pytest.raises(CommandError):
        check("--repair")
    settle()
    assert FeedAuthor.objects.get(author_id="bob").mode == AuthorMode.STORED
    assert list(entries(FANS[0])) == shown(FANS[0]) == [first]
    assert "All feeds equal" in check()
