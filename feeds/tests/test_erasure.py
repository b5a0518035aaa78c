"""Nothing tells of a user any more who was erased, and all others have what they had."""

from __future__ import annotations

import itertools
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from devtools.testing.posts import create_posts, follow, new_post
from feeds import cache
from feeds.erasure import _HIS_ENTRIES, _execute, _forget_window, erase_user
from feeds.events import decode_feed_event, decode_follow_event
from feeds.fanout.gate import TOGETHER
from feeds.models import FeedAuthor, FeedEntry, FeedWindow, Follow, Post
from feeds.services import Pair, created_words, delete_posts, unfollow
from feeds.tests.stage import Other, held_open
from outbox.database.round_trips import RoundTrip, send
from outbox.models import OutboxEvent
from restapi.json import to_json
from restapi.models import IdempotencyRow

pytestmark = pytest.mark.django_db(transaction=True)


def entries_of_all() -> None:
    """What fan-out would have written."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO feed_entries (user_id, post_id, author_id, follow_number)
            SELECT follower_id, posts.id, author_id, number
            FROM posts JOIN follows ON followee_id = author_id
            """
        )


def published(topic: str) -> list[tuple[str, str]]:
    decode = decode_feed_event if topic == "feed-events" else decode_follow_event
    rows = OutboxEvent.objects.filter(topic=topic).order_by("id")
    return [(event.type, event.key) for event in rows if decode(event.payload)]


def kept(post_id: int, key: int) -> None:
    """An answer under a key, as POST /posts leaves it."""
    IdempotencyRow.objects.create(
        id=f"00000000-0000-0000-0000-{key:012}",
        fingerprint="00000000-0000-0000-0000-000000000000",
        status=202,
        body=to_json(created_words(post_id)),
    )


def cached(user_id: str) -> None:
    """A feed that somebody has read."""
    cache.ask(cache.mark([user_id], token=b"t" * 16))
    feed = cache.new_feed(ids=[4, 2], floor=0, snapshot="1:1:", merged=[])
    cache.ask(cache.store([(user_id, feed)], token=b"t" * 16))
    assert cache.kept_feeds([user_id])


def a_world() -> tuple[list[int], list[int]]:
    """ada and others follow each other and post; returns the posts of ada and of bob."""
    names = ["bob", "cyd", "dee"]
    follow([Pair("ada", name) for name in names] + [Pair(name, "ada") for name in names])
    follow([Pair("cyd", "bob")])
    mine = create_posts([new_post("ada", f"a{number}") for number in range(5)])
    others = create_posts([new_post("bob", f"b{number}") for number in range(3)])
    delete_posts(mine[:1])
    entries_of_all()
    FeedWindow.objects.create(user_id="ada", floor=7)
    FeedWindow.objects.create(user_id="bob", floor=7)
    FeedAuthor.objects.create(author_id="ada", followers=0)
    kept(mine[1], 1)
    kept(others[1], 2)
    cached("ada")
    return [*mine], [*others]


def test_in_pieces_and_nothing_is_left() -> None:
    mine, others = a_world()
    OutboxEvent.objects.all().delete()
    pieces = []
    erased = erase_user("ada", piece=2, on_piece=lambda so_far: pieces.append(so_far.posts))
    assert (erased.posts, erased.follows, erased.answers, erased.waiting) == (4, 6, 1, 6)
    assert erased.entries == 3 * 5 + 3  # ada's posts in three feeds, bob's in hers
    assert max(b - a for a, b in itertools.pairwise(pieces)) <= 2

    assert published("feed-events") == [("POST_DELETED", "ada")] * 4
    followers = ["ada"] * 3 + ["bob", "cyd", "dee"]
    assert sorted(published("follow-events")) == [("UNFOLLOWED", name) for name in followers]
    assert set(Post.objects.filter(id__in=mine).values_list("author_id", "content")) == {("", "")}
    assert not Post.objects.filter(id__in=mine, deleted_at=None).exists()
    assert not FeedEntry.objects.filter(author_id="ada").exists()
    assert not FeedEntry.objects.filter(user_id="ada").exists()
    assert not FeedWindow.objects.filter(user_id="ada").exists()
    assert cache.kept_feeds(["ada"]) == {}

    # the others
    assert Follow.objects.filter(active=True).count() == 1
    assert set(FeedEntry.objects.values_list("user_id", "post_id")) == {
        ("cyd", post_id) for post_id in others
    }
    assert Post.objects.filter(author_id="bob", deleted_at=None).count() == 3
    assert FeedWindow.objects.get().user_id == "bob"
    assert bytes(IdempotencyRow.objects.get(status=202).body) == to_json(created_words(others[1]))
    assert str(mine[1]).encode() not in bytes(IdempotencyRow.objects.get(status=410).body)


def test_a_second_run_finds_what_had_to_wait() -> None:
    a_world()
    out = StringIO()
    call_command("erase_user", "ada", stdout=out)
    assert "4 posts, 6 follows" in out.getvalue()
    assert "6 ended follows are kept" in out.getvalue()
    assert FeedAuthor.objects.filter(author_id="ada").exists()
    before = OutboxEvent.objects.count()
    Follow.objects.filter(active=False).delete()  # as the clean-up does
    again = erase_user("ada")
    assert (again.posts, again.follows, again.entries, again.waiting) == (0, 0, 0, 0)
    assert OutboxEvent.objects.count() == before
    assert not FeedAuthor.objects.filter(author_id="ada").exists()


def test_an_entry_that_a_new_follow_has_taken_over_stays() -> None:
    """Deleted by the numbers of follows that have ended, not by the pair."""
    [post_id] = create_posts([new_post("bob", "b")])
    follow([Pair("ada", "bob")])
    number = Follow.objects.get().number
    FeedEntry.objects.create(user_id="ada", post_id=post_id, author_id="bob", follow_number=number)
    FeedEntry.objects.create(user_id="ada", post_id=1, author_id="bob", follow_number=number - 1)
    assert _execute(_HIS_ENTRIES, {"user": "ada", "most": 10}) == 1
    assert FeedEntry.objects.get().post_id == post_id


def test_what_is_no_id_is_said() -> None:
    with pytest.raises(CommandError, match="not a user id"):
        call_command("erase_user", "a/b")


def test_the_floor_of_who_follows_again_stays() -> None:
    """Below it entries may be missing, which a backfill that is under way has left out."""
    FeedWindow.objects.create(user_id="ada", floor=7)

    def backfill() -> None:
        send(RoundTrip([TOGETHER]))
        follow([Pair("ada", "bob")])

    with held_open(backfill) as filling:
        erasing = Other(lambda: _forget_window("ada"))
        assert erasing.stands()
        filling.commit()
        erasing.join()
    assert FeedWindow.objects.get().floor == 7
    unfollow([Pair("ada", "bob")])
    erase_user("ada")
    assert not FeedWindow.objects.exists()
