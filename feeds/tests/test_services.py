"""Posts and follows: rows, events and their number, and who wins a race."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devtools.testing.patience import PATIENCE
from devtools.testing.posts import create_posts, follow, new_post
from feeds.events import (
    Followed,
    PostCreated,
    decode_feed_event,
    decode_follow_event,
    events_of_post,
)
from feeds.ids import moment_of
from feeds.models import FeedChange, FeedLog, Follow, Post
from feeds.services import NewPost, Pair, delete_posts, unfollow
from feeds.tests.stage import Other, held_open
from outbox.envelope import TraceContext
from outbox.models import OutboxEvent
from restapi.tests.tables import row_counts

PAIR = Pair("grace", "ada")


def added(before: dict[str, int]) -> dict[str, int]:
    """Rows that came since, by table; tables without a change and the node of the ids are left out."""
    after = row_counts()
    return {
        table: after[table] - count
        for table, count in before.items()
        if after[table] != count and table != "feed_nodes"
    }


def events(topic: str) -> list[OutboxEvent]:
    return list(OutboxEvent.objects.filter(topic=topic).order_by("id"))


@pytest.mark.django_db
def test_a_batch_of_posts_leaves_exactly_its_rows_in_two_statements() -> None:
    before = row_counts()
    posts = [new_post(f"author {number % 3}", f"text {number}") for number in range(10)]
    with CaptureQueriesContext(connection) as captured:
        ids = create_posts(posts)
    assert len(captured) == 2
    assert added(before) == {"posts": 10, "feed_log": 10, "event_outbox": 10}
    assert list(ids) == [post.post_id for post in posts]
    assert list(Post.objects.order_by("id").values_list("id", "author_id", "content")) == [
        (post.post_id, post.author_id, post.content) for post in posts
    ]
    assert list(FeedLog.objects.order_by("id").values_list("post_id", "kind", "seq")) == [
        (id_, "post", None) for id_ in ids
    ]


@pytest.mark.django_db
def test_an_empty_batch_leaves_nothing() -> None:
    before = row_counts()
    assert list(create_posts([])) == []
    assert follow([]) == unfollow([]) == []
    assert delete_posts([]) == []
    assert added(before) == {}


@pytest.mark.django_db
def test_the_event_of_a_post_says_what_the_contract_says() -> None:
    trace = TraceContext(f"00-{'a' * 32}-{'b' * 16}-01", "corr-1")
    text = 'é𝄞 "\\ \n and a tab\t'
    post = new_post("ada", text)
    post = NewPost(post_id=post.post_id, author_id="ada", content=text, trace=trace)
    [post_id] = create_posts([post])
    [event] = events("feed-events")
    assert (event.type, event.key, event.correlation_id) == ("POST_CREATED", "ada", "corr-1")
    assert str(event.event_id) == events_of_post(post_id)[0]
    assert json.loads(event.payload) == {
        "event_id": post_id,
        "event_id_str": str(post_id),
        "type": "POST_CREATED",
        "actor_id": "ada",
        "payload": {"post_id": post_id, "post_id_str": str(post_id), "content": text},
        "timestamp": int(moment_of(post_id).timestamp()),
    }
    assert decode_feed_event(event.payload) == PostCreated.of(
        post_id, "ada", text, int(moment_of(post_id).timestamp())
    )
    created_at = Post.objects.get().created_at
    assert created_at == moment_of(post_id)
    assert abs(created_at - timezone.now()) < timedelta(minutes=5)


@pytest.mark.django_db
def test_a_post_is_deleted_once() -> None:
    [post_id, other] = create_posts([new_post("ada", "a"), new_post("ada", "b")])
    before = row_counts()
    assert delete_posts([post_id, post_id, 1]) == [True, True]
    assert added(before) == {"event_outbox": 1, "feed_changes": 1, "feed_log": 1}
    assert delete_posts([post_id]) == [False]
    assert added(before) == {"event_outbox": 1, "feed_changes": 1, "feed_log": 1}
    assert Post.objects.get(id=post_id).content == ""
    assert Post.objects.get(id=other).deleted_at is None
    change = FeedChange.objects.get()
    assert (change.kind, change.author_id, change.post_id) == ("delete", "ada", post_id)
    event = events("feed-events")[-1]
    assert (event.type, str(event.event_id)) == ("POST_DELETED", events_of_post(post_id)[1])
    value = json.loads(event.payload)
    assert value["event_id"] == post_id + 1
    assert value["payload"] == {"post_id": post_id, "post_id_str": str(post_id)}
    assert FeedLog.objects.filter(kind="delete").get().post_id == post_id


@pytest.mark.django_db
def test_a_follow_has_a_number_and_again_changes_nothing() -> None:
    assert follow([PAIR, PAIR]) == [True, False]
    first = Follow.objects.get()
    before = row_counts()
    assert follow([PAIR]) == [False]
    assert added(before) == {}
    Follow.objects.update(backfilled=True)
    assert unfollow([PAIR]) == [True]
    assert unfollow([PAIR]) == [False]
    assert follow([PAIR]) == [True]
    second = Follow.objects.get()
    assert second.active
    assert not second.backfilled  # it is merged until it is filled again
    assert second.number > first.number
    assert added(before) == {"event_outbox": 2, "feed_changes": 2}
    published = [decode_follow_event(event.payload) for event in events("follow-events")]
    assert [(event.type, event.payload.number, event.key) for event in published] == [
        ("FOLLOWED", first.number, "grace"),
        ("UNFOLLOWED", first.number, "grace"),
        ("FOLLOWED", second.number, "grace"),
    ]
    assert len({UUID(event.event_id) for event in published}) == 3
    value = json.loads(events("follow-events")[1].payload)
    assert abs(value.pop("timestamp") - time.time()) < 300
    assert value == {
        "event_id": 2 * first.number + 1,
        "event_id_str": str(2 * first.number + 1),
        "type": "UNFOLLOWED",
        "actor_id": "grace",
        "payload": {"follower_id": "grace", "followee_id": "ada", "number": first.number},
    }
    kinds = FeedChange.objects.order_by("id").values_list("kind", "follower_id", "author_id")
    assert list(kinds) == [(kind, *PAIR) for kind in ("follow", "unfollow", "follow")]


@pytest.mark.django_db
def test_who_asks_what_has_changed_finds_the_transaction_that_wrote_it() -> None:
    follow([PAIR])
    with connection.cursor() as cursor:
        cursor.execute("SELECT xid = pg_current_xact_id() FROM feed_changes")
        assert cursor.fetchall() == [(True,)]


@pytest.mark.django_db
def test_buckets_are_those_of_the_followers() -> None:
    follow([Pair(f"follower {number}", "ada") for number in range(3000)])
    buckets = set(Follow.objects.values_list("bucket", flat=True))
    assert buckets <= set(range(1024))
    assert len(buckets) > 900  # spread


# -- races, with real transactions


def meanwhile(change: Callable[[], object]) -> Other:
    """The same change in a second transaction, which waits for the first."""
    other = Other(change)
    assert other.stands(), "it did not wait"
    return other


@pytest.mark.django_db(transaction=True)
def test_two_follows_at_once_are_one() -> None:
    with held_open(lambda: follow([PAIR])) as first:
        second = meanwhile(lambda: follow([PAIR]))
        first.commit()
        assert second.join() == [False]
    assert [event.type for event in events("follow-events")] == ["FOLLOWED"]
    assert FeedChange.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_unfollows_at_once_are_one() -> None:
    follow([PAIR])
    with held_open(lambda: unfollow([PAIR])) as first:
        second = meanwhile(lambda: unfollow([PAIR]))
        first.commit()
        assert second.join() == [False]
    assert [event.type for event in events("follow-events")] == ["FOLLOWED", "UNFOLLOWED"]


@pytest.mark.django_db(transaction=True)
def test_a_follow_that_waits_for_an_unfollow_begins_behind_it() -> None:
    """Its number is drawn behind the lock, and its event has the higher id."""
    follow([PAIR])
    with held_open(lambda: unfollow([PAIR])) as first:
        second = meanwhile(lambda: follow([PAIR]))
        first.commit()
        assert second.join() == [True]
    published = [decode_follow_event(event.payload) for event in events("follow-events")]
    assert [event.type for event in published] == ["FOLLOWED", "UNFOLLOWED", "FOLLOWED"]
    assert published[2].payload.number == Follow.objects.get().number > published[0].payload.number


@pytest.mark.django_db(transaction=True)
def test_two_deletions_at_once_are_one() -> None:
    [post_id] = create_posts([new_post("ada", "a")])
    with held_open(lambda: delete_posts([post_id])) as first:
        second = meanwhile(lambda: delete_posts([post_id]))
        first.commit()
        assert second.join() == [False]
    assert [event.type for event in events("feed-events")] == ["POST_CREATED", "POST_DELETED"]
    assert FeedLog.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_batches_in_any_order_never_wait_for_each_other_in_a_circle() -> None:
    pairs = [Pair(f"f{number}", "ada") for number in range(200)]
    start = threading.Barrier(4)

    def storm(backwards: bool) -> None:
        try:
            start.wait(PATIENCE)
            for _ in range(5):
                follow(pairs[::-1] if backwards else pairs)
                unfollow(pairs if backwards else pairs[::-1])
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(storm, [True, False, True, False]))
    balance = dict.fromkeys(pairs, 0)
    for event in events("follow-events"):
        published = decode_follow_event(event.payload)
        pair = Pair(published.payload.follower_id, published.payload.followee_id)
        balance[pair] += 1 if isinstance(published, Followed) else -1
        assert balance[pair] in (0, 1)  # the events of a pair keep their order
    active = Follow.objects.filter(active=True).values_list("follower_id", "followee_id")
    assert {Pair(*row) for row in active} == {pair for pair, count in balance.items() if count}
