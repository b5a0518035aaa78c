"""What the events of posts and follows leave: slices, numbers of followers, dead letters, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from prometheus_client import REGISTRY

from feeds import tasks
from feeds.events import FEED_EVENTS_TOPIC, Followed, PostCreated, PostDeleted, Unfollowed
from feeds.fanout import handlers
from feeds.fanout.handlers import UnknownPost
from feeds.fanout.slices import of_buckets
from feeds.models import BUCKETS, FeedAuthor, FeedChange, FeedSlice, Post, SliceKind
from feeds.queries import followers_page
from feeds.tests.stage import (
    apply_events,
    delete,
    entries,
    envelopes,
    follow,
    new_id,
    number_of,
    post,
    settle,
    unfollow,
    work_off,
)
from outbox.conf import CIRCUIT
from outbox.envelope import EventEnvelope
from outbox.handlers import pause
from outbox.inbox.chunk import Chunk
from outbox.models import BridgePosition, DeadLetter

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_cached_feeds"),
]


def ranges(post_id: int) -> list[tuple[int, int]]:
    rows = FeedSlice.objects.filter(post_id=post_id).order_by("bucket_from")
    return list(rows.values_list("bucket_from", "bucket_to"))


def event_of(post_id: int, author: str, of: Any = PostCreated) -> EventEnvelope:
    event = of.of(post_id, author, *(["words"] if of is PostCreated else []), 0)
    return EventEnvelope(
        event_id=uuid4(),
        type=event.type,
        topic=FEED_EVENTS_TOPIC.name,
        key=author,
        source="/elsewhere",
        time="",
        payload=event.to_json(),
    )


def taken(*events: EventEnvelope) -> None:
    """A chunk of Kafka with these comes to the handler's task."""
    topic_id = uuid4()
    BridgePosition.objects.create(
        handler="cut_posts",
        topic=FEED_EVENTS_TOPIC.name,
        partition=0,
        topic_id=topic_id,
        next_offset=0,
    )
    chunk = Chunk(FEED_EVENTS_TOPIC.name, topic_id, 0, 0, len(events), tuple(enumerate(events)))
    tasks.cut_posts(chunks=[chunk.to_task()])


class TestCutting:
    @pytest.mark.parametrize("followers", [0, 1, 1000, 1001, 9_999, 5_000_000])
    def test_slices_together_hold_every_bucket_once(self, followers: int) -> None:
        made = of_buckets(SliceKind.POST, "bob", followers, each=1000)
        borders = [each.bucket_from for each in made] + [made[-1].bucket_to]
        assert (borders[0], borders[-1]) == (0, BUCKETS)
        assert borders == sorted(set(borders))
        assert len(made) == max(1, min(BUCKETS, -(-followers // 1000)))

    def test_as_many_as_the_kept_number_says_and_nobody_reads_followers(self) -> None:
        FeedAuthor.objects.create(author_id="bob", followers=3500)
        made = post("bob")
        with CaptureQueriesContext(connection) as captured:
            apply_events()
        assert not any(" follows" in query["sql"] for query in captured)
        assert ranges(made) == [(0, 256), (256, 512), (512, 768), (768, 1024)]

    def test_a_merged_author_makes_one_slice_without_followers(self) -> None:
        FeedAuthor.objects.create(author_id="bob", followers=50_000, mode="merged")
        made = post("bob")
        apply_events()
        assert ranges(made) == [(0, 0)]

    def test_a_deleted_post_makes_none(self) -> None:
        made = post("bob")
        delete(made)
        apply_events("POST_CREATED")
        assert ranges(made) == []

    @pytest.mark.parametrize("author", ["bob", "eve"])
    def test_a_post_that_our_table_does_not_hold_fails(self, author: str) -> None:
        """And so becomes a dead letter; also one that is somebody else's."""
        post_id = new_id() if author == "bob" else post("bob")
        with pytest.raises(UnknownPost), transaction.atomic():
            handlers.cut_posts([event_of(post_id, author)])
        assert ranges(post_id) == []

    @pytest.mark.parametrize("of", [PostCreated, PostDeleted])
    def test_what_another_producer_invents_is_its_fault(self, of: Any) -> None:
        """As the handler's task does it, from a chunk of Kafka: parked together, and no reason to
        doubt the handler, however many they are. What is ours among them is cut."""
        made = post("bob")
        foreign = [event_of(new_id(), f"other{number}", of) for number in range(CIRCUIT.least * 3)]
        taken(*foreign, *envelopes("POST_CREATED"), event_of(made, "somebody else", of))
        letters = DeadLetter.objects.order_by("offset")
        assert [letter.event_id for letter in letters][:-1] == [each.event_id for each in foreign]
        assert {letter.state for letter in letters} == {DeadLetter.State.DEAD}
        assert all("not ours" in each.error and "no post" in each.error for each in letters)
        assert not pause.handler_statuses(["cut_posts"])[0].paused
        assert ranges(made) == [(0, BUCKETS)]
        assert BridgePosition.objects.get().next_offset == len(foreign) + 2

    def test_one_of_ours_without_its_post_is_our_fault(self) -> None:
        """It is tried again, and the circuit counts it."""
        Post.objects.filter(id=post("bob")).delete()
        taken(*envelopes("POST_CREATED"))
        letter = DeadLetter.objects.get()
        assert letter.state == DeadLetter.State.RETRYING
        assert letter.error.startswith("UnknownPost: There is no post")
        assert BridgePosition.objects.get().failures > 0

    def test_what_is_no_event_of_the_topic_fails(self) -> None:
        broken = msgspec.structs.replace(
            event_of(new_id(), "bob"), payload='{"type": "POST_CREATED"}'
        )
        with pytest.raises(msgspec.DecodeError), transaction.atomic():
            handlers.cut_posts([broken])

    def test_a_replay_clears_slices_alone_and_comes_to_the_same(self) -> None:
        follow("ann", "bob")
        first = post("bob")
        settle()
        second = post("bob")
        apply_events()
        before = entries("ann")
        with transaction.atomic():
            handlers.reset_slices()
            handlers.cut_posts([event_of(first, "bob"), event_of(second, "bob")])
        assert entries("ann") == before
        work_off()
        assert list(entries("ann")) == [second, first]


def test_events_and_entries_are_counted() -> None:
    before = [counted(kind, value) for kind, value in METRICS]
    follow("ann", "bob")
    post("bob")
    settle()
    after = [counted(kind, value) for kind, value in METRICS]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1] * len(METRICS)


def follow_event(event: Followed | Unfollowed) -> EventEnvelope:
    """As another producer would write it, its id like one of ours."""
    return EventEnvelope(
        event_id=UUID(event.event_id),
        type=event.type,
        topic=event.topic.name,
        key=event.key,
        source="/elsewhere",
        time="",
        payload=event.to_json(),
    )


def count(events: Sequence[EventEnvelope]) -> None:
    with transaction.atomic():
        handlers.count_follows(events)


METRICS = [
    ("feed_events_processed_total", {"type": "POST_CREATED"}),
    ("feed_events_processed_total", {"type": "FOLLOWED"}),
    ("feed_event_processing_duration_seconds_count", {"handler": "cut_posts"}),
    ("feed_event_processing_duration_seconds_count", {"handler": "count_follows"}),
    ("feed_fanout_entries_total", {"kind": "post"}),
    ("feed_lag_seconds_count", {"followers": "1-100"}),
]


def counted(name: str, labels: dict[str, str]) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class TestFollowers:
    def count(self) -> int:
        return int(FeedAuthor.objects.get(author_id="bob").followers)

    def test_are_added_up_by_the_handler(self) -> None:
        for name in ("ann", "eve", "joe"):
            follow(name, "bob")
        follow("ann", "bob")  # again: no event
        assert not FeedAuthor.objects.exists()
        apply_events()
        unfollow("ann", "bob")
        unfollow("ann", "bob")
        assert self.count() == 3
        apply_events()
        assert self.count() == 2

    def test_in_any_order(self) -> None:
        follow("ann", "bob")
        unfollow("ann", "bob")
        follow("ann", "bob")
        apply_events("UNFOLLOWED")
        assert self.count() == -1
        apply_events("FOLLOWED")
        assert self.count() == 1
        first = post("bob")
        settle()
        assert list(entries("ann")) == [first]

    def test_no_fewer_than_none_are_shown(self) -> None:
        """Where an unfollow is counted before its follow."""
        follow("ann", "bob")
        unfollow("ann", "bob")
        apply_events("UNFOLLOWED")
        assert FeedAuthor.objects.get().followers == -1
        assert followers_page("bob", limit=10).in_all == 0

    def test_what_another_producer_tells_changes_nothing(self, settings: Any) -> None:
        """Neither the number, nor the mode that follows from it, nor anybody's feed."""
        settings.FEED_MERGE_FOLLOWERS = 4
        follow("ann", "bob")
        follow("eve", "bob")
        settle()
        number = number_of("ann", "bob")
        foreign = [
            *(
                follow_event(Followed.of(f"other{each}", "bob", 10**9 + each, 0))
                for each in range(8)
            ),
            *(follow_event(Unfollowed.of("ann", "bob", each, 0)) for each in (number, 10**9)),
        ]
        follow("joe", "bob")
        with CaptureQueriesContext(connection) as alone:
            count([*envelopes("FOLLOWED")[-1:]])
        unfollow("eve", "bob")
        with CaptureQueriesContext(connection) as mixed:
            count([*foreign, *envelopes("UNFOLLOWED")])
        count(foreign)
        assert len(mixed) == len(alone)
        assert self.count() == 2
        assert not FeedChange.objects.filter(kind="mode").exists()
        kinds = FeedSlice.objects.order_by("id").values_list("kind", "follower_id")
        assert list(kinds) == [("backfill", "joe"), ("cleanup", "eve")]

    def test_a_change_of_mode_is_told_to_who_believes_cached_feeds(self, settings: Any) -> None:
        settings.FEED_MERGE_FOLLOWERS = 2
        follow("ann", "bob")
        follow("eve", "bob")
        apply_events()
        assert list(FeedChange.objects.filter(kind="mode").values_list("author_id")) == [("bob",)]
