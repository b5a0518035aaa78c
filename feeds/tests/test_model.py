"""Any course of posts, deletions, follows and unfollows, with fan-out behind, ahead or in the middle of
it, and a cache that loses what it likes: every page that is read, at any moment, is one that the truth
allows; and when nothing is left to do, every page from every cursor is the truth.

The truth is a dict of posts and a set of follows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis
from django.conf import settings
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from feeds import cache
from feeds.fanout import work
from feeds.fanout.claims import SliceClaims
from feeds.fanout.slices import SliceBatch, WrittenSlices
from feeds.models import AuthorMode, FeedAuthor
from feeds.reading import changes, reads
from feeds.reading.changes import Changes
from feeds.reading.pages import pages
from feeds.reading.questions import FeedPage, FeedQuestion
from feeds.tests import stage
from feeds.tests.cached import ask
from restapi.lookup import run

pytestmark = pytest.mark.django_db(transaction=True)

NAMES = st.sampled_from("abcdef")
_worlds = itertools.count()


class Feeds(RuleBasedStateMachine):
    posts = Bundle("posts")

    def __init__(self) -> None:
        super().__init__()
        self.world = f"{next(_worlds)}-"
        self.author_of: dict[int, str] = {}  # of posts that are not deleted
        self.following: set[tuple[str, str]] = set()
        self.on_its_way: set[int] = set()  # posted since everything was settled last
        self.changes = [Changes(), Changes()]  # of two processes
        changes.CHANGES = self.changes[0]
        self.claims = SliceClaims()
        self.frozen: list[tuple[SliceBatch, WrittenSlices]] = []  # what workers hold in their heads
        self.is_settled = True

    # -- what users do

    @initialize()
    def begin_with_one_who_is_merged(self) -> None:
        self.everybody_follows("a")
        self.settle()

    @rule(target=posts, author=NAMES)
    def post(self, author: str) -> int:
        id_ = stage.post(self.world + author)
        self.author_of[id_] = author
        self.on_its_way.add(id_)
        self.is_settled = False
        return id_

    @rule(target=posts, author=NAMES, count=st.integers(2, 12))
    def post_many(self, author: str, count: int) -> Any:
        return multiple(*[self.post(author) for _ in range(count)])

    @rule(id_=posts)
    def delete(self, id_: int) -> None:
        stage.delete(id_)
        self.author_of.pop(id_, None)
        self.is_settled = False

    @rule(follower=NAMES, author=NAMES)
    def follow(self, follower: str, author: str) -> None:
        if follower != author:
            stage.follow(self.world + follower, self.world + author)
            self.following.add((follower, author))
            self.is_settled = False

    @rule(author=NAMES)
    def everybody_follows(self, author: str) -> None:
        """So many that he is merged at read."""
        for follower in "abcdef":
            self.follow(follower, author)

    @rule(follower=NAMES, author=NAMES)
    def unfollow(self, follower: str, author: str) -> None:
        stage.unfollow(self.world + follower, self.world + author)
        self.following.discard((follower, author))
        self.is_settled = False

    @rule(author=NAMES)
    def nobody_follows(self, author: str) -> None:
        """So few that he is stored again."""
        for follower in "abcdef":
            self.unfollow(follower, author)

    # -- what processes do, and what becomes of the cache

    @rule(types=st.sampled_from([(), ("POST_CREATED",), ("FOLLOWED", "UNFOLLOWED")]))
    def apply_events(self, types: Sequence[str]) -> None:
        stage.apply_events(*types)

    @rule()
    def apply_some_slices(self) -> None:
        if batch := self.claims.take():
            work.apply_batch(batch)

    @rule(wrote=st.booleans())
    def a_worker_dies(self, wrote: bool) -> None:
        """It holds slices, and has written their entries or not; its leases end."""
        if batch := self.claims.take():
            if batch.alone:  # which it may do only a few times
                work.apply_batch(batch)
                return
            if wrote:
                work._WRITERS[batch.kind](batch)
            stage.end_leases()

    @rule()
    def a_worker_freezes(self) -> None:
        """The same between entries and cache; others have its slices, and it goes on later."""
        batch = self.claims.take()
        if batch and not batch.alone:
            self.frozen.append((batch, work._WRITERS[batch.kind](batch)))
            stage.end_leases()

    @rule()
    def it_goes_on(self) -> None:
        for batch, written in self.frozen:
            if not written.again_in:
                work._confirm(batch, written)
        self.frozen.clear()

    @rule(user=NAMES)
    def forget_one(self, user: str) -> None:
        cache.touch_users([self.world + user])

    @rule()
    def forget_all(self) -> None:
        with redis.Redis.from_url(settings.FEED_CACHE_URL) as server:
            server.flushdb()

    @rule()
    def other_process(self) -> None:
        self.changes.reverse()
        changes.CHANGES = self.changes[0]

    @rule()
    def new_process(self) -> None:
        changes.CHANGES = self.changes[0] = Changes()

    # -- what is read

    @rule(reader=NAMES, limit=st.integers(1, 9), offset=st.integers(0, 3))
    def read_newest(self, reader: str, limit: int, offset: int) -> None:
        self.is_allowed(
            reader, limit, ask(self.world + reader, limit, offset=offset), offset=offset
        )

    @rule(reader=NAMES, limit=st.integers(1, 9), before=posts)
    def read_before(self, reader: str, limit: int, before: int) -> None:
        self.is_allowed(
            reader, limit, ask(self.world + reader, limit, before=before), before=before
        )

    def is_allowed(
        self, reader: str, limit: int, page: FeedPage, *, offset: int = 0, before: int | None = None
    ) -> None:
        """What is on its way may be there or not; nothing else may be missing, and nothing wrong."""
        truth = [id_ for id_ in self.truth(reader) if before is None or id_ < before]
        assert set(page.ids) <= set(truth)
        assert list(page.ids) == sorted(set(page.ids), reverse=True)
        due = [id_ for id_ in truth if id_ not in self.on_its_way]
        if page.next_before is None:
            skipped = set(due) - set(page.ids)
            assert len(skipped) <= offset
        elif not offset:
            assert len(page.ids) == limit
            assert {id_ for id_ in due if id_ >= page.next_before} <= set(page.ids)

    def truth(self, reader: str) -> list[int]:
        return sorted(
            (
                id_
                for id_, author in self.author_of.items()
                if author == reader or (reader, author) in self.following
            ),
            reverse=True,
        )

    @rule()
    def settle(self) -> None:
        """A quiet point: all that was begun is done."""
        stage.settle()
        self.on_its_way.clear()
        self.is_settled = True

    @invariant()
    def all_pages_are_the_truth(self) -> None:
        """All that can be asked, at once; and again, from the cache now."""
        if self.is_settled:
            asked = [page for reader in "abcdef" for page in self.pages_of(reader)]
            for _ in range(2):
                steps = pages([question for question, _, _ in asked], deep=True)
                made = run(steps, redis=cache.replies)
                for page, (question, ids, more) in zip(made, asked, strict=True):
                    assert page is not None
                    assert (list(page.ids), page.next_before) == (ids, more), question
            self.is_settled = False

    def pages_of(self, reader: str) -> Iterator[tuple[FeedQuestion, list[int], int | None]]:
        """Pages with their ids and `next_before`."""
        truth, name = self.truth(reader), self.world + reader
        limits = itertools.cycle((1, 2, 5, 100))
        for offset, limit in zip((0, 0, 1, 3, len(truth)), limits, strict=False):
            ids, rest = truth[offset : offset + limit], truth[offset + limit :]
            more = ids[-1] if ids and rest else None
            yield FeedQuestion(name, limit, offset), ids, more
        for edge, limit in zip((*truth, 1, (1 << 64) - 1), limits, strict=False):
            older = [id_ for id_ in truth if id_ < edge]
            more = older[limit - 1] if len(older) > limit else None
            yield FeedQuestion(name, limit, before=edge), older[:limit], more
            newer = [id_ for id_ in truth if id_ > edge][-limit:]
            more = newer[-1] if newer and newer[-1] != truth[-1] else None
            yield FeedQuestion(name, limit, after=edge), newer, more

    def teardown(self) -> None:
        self.settle()
        self.all_pages_are_the_truth()


@pytest.fixture
def small(settings: Any, monkeypatch: pytest.MonkeyPatch, no_cached_feeds: None) -> Iterator[None]:
    """Windows, caches and thresholds that a few posts and follows reach."""
    settings.FEED_WINDOW = 10
    settings.FEED_MERGE_FOLLOWERS = 4
    monkeypatch.setattr(cache, "IDS_AT_MOST", 12)
    monkeypatch.setattr(reads, "FILLED_WITH", 6)
    monkeypatch.setattr(changes, "CHANGES", changes.CHANGES)
    yield
    assert FeedAuthor.objects.filter(mode=AuthorMode.MERGED).exists()  # the threshold was crossed


@pytest.mark.usefixtures("small")
def test_every_page_is_the_truth() -> None:
    run_state_machine_as_test(
        Feeds,
        settings=hypothesis_settings(max_examples=10, stateful_step_count=40),
    )
