"""Cached feeds are copies that may be lost, late, old or wrong; a page never is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import redis
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feeds import cache
from feeds.fanout import posts as fanout_posts
from feeds.models import FeedChange, SliceKind
from feeds.reading import changes, hits
from feeds.reading.changes import Changes
from feeds.reading.forgetting import prune_changes
from feeds.reading.pages import pages
from feeds.reading.questions import FeedPage, FeedQuestion
from feeds.tests.cached import ask, assert_right
from feeds.tests.stage import (
    apply_events,
    claim,
    delete,
    follow,
    held_open,
    new_id,
    post,
    settle,
    truth,
    unfollow,
)
from restapi.lookup import Ask, LookupSteps, run

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_cached_feeds", "new_process"),
]


class Slowly:
    """A reading that is done step by step."""

    def __init__(self, reader: str) -> None:
        self._steps: LookupSteps[list[FeedPage | None]] = pages(
            [FeedQuestion(reader, 20)], deep=True
        )
        self._ask: Ask | None = next(self._steps)
        self.page: FeedPage | None = None

    def step(self) -> None:
        """What it asks next is answered."""
        assert self._ask is not None
        answer = _answer_to(self._ask)
        try:
            self._ask = self._steps.send(answer)
        except StopIteration as end:
            self._ask, [self.page] = None, end.value

    def not_answered(self, answer: Any) -> Sequence[cache.Command]:
        """The commands that it asks next are not answered in time: it is sent `answer`. They may be done
        all the same, and late."""
        assert self._ask is not None
        commands = self._ask.commands
        assert commands
        self._ask = self._steps.send(answer)
        return commands

    def finish(self) -> FeedPage:
        while self._ask is not None:
            self.step()
        assert self.page is not None
        return self.page


def _answer_to(ask_: Ask) -> Any:
    if ask_.commands:
        return [cache.ask(command) for command in ask_.commands]
    rows = []
    for sql, parameters in ask_.statements:
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            rows.append(cursor.fetchall())
    return rows


class TestFromTheAnswerOn:
    """No handler has run when the page is read."""

    def test_a_deleted_post_is_not_shown(self, cached: int) -> None:
        delete(cached)
        page = ask("ann")
        assert (list(page.ids), page.hit) == ([], True)

    def test_a_deletion_that_committed_behind_a_later_one_is_heard_of(self, cached: int) -> None:
        other = post("bob")
        settle()
        assert_right("ann", hit=True)
        with held_open(lambda: delete(cached)):
            delete(other)
            assert ask("ann").ids == [cached]
        assert ask("ann").ids == []

    def test_who_is_followed_no_more_is_not_shown(self, cached: int) -> None:
        unfollow("ann", "bob")
        assert_right("ann", hit=False)
        assert_right("ann", hit=True)

    def test_who_is_followed_is_shown_with_all_his_posts(self, cached: int) -> None:
        post("eve")
        settle()
        follow("ann", "eve")
        assert_right("ann", hit=False)
        assert_right("ann", hit=True)

    def test_another_process_knows_it_too(self, cached: int, monkeypatch: Any) -> None:
        delete(cached)
        monkeypatch.setattr(changes, "CHANGES", Changes())
        page = ask("ann")
        assert (list(page.ids), page.hit) == ([], True)

    def test_a_change_of_mode_is_heard_of(self, cached: int) -> None:
        """Otherwise the posts of an author who is merged from now on would be missing."""
        with connection.cursor() as cursor:
            cursor.execute("UPDATE feed_authors SET mode = 'merged' WHERE author_id = 'bob'")
            cursor.execute("INSERT INTO feed_changes (kind, author_id) VALUES ('mode', 'bob')")
        post("bob")
        assert_right("ann", hit=False)
        post("bob")
        assert_right("ann", hit=True)


def test_what_many_who_wait_together_cost(cached: int) -> None:
    """A look into Redis, what has changed and one statement for all that are not cached, and one command
    that stores them."""
    follow("eve", "bob")
    settle()
    asked: list[int] = []

    def replies(commands: Sequence[cache.Command]) -> Sequence[Any] | None:
        asked.append(len(commands))
        return cache.replies(commands)

    for commands, statements in (([1, 1], 2), ([1], 1)):
        asked.clear()
        steps = pages(
            [FeedQuestion(reader, 20) for reader in ("ann", "eve", "joe", "zoe")], deep=True
        )
        with CaptureQueriesContext(connection) as captured:
            answer = run(steps, redis=replies)
        assert [list(page.ids) for page in answer if page] == [[cached], [cached], [], []]
        assert (asked, len(captured)) == (commands, statements)


class TestFills:
    def test_a_fill_that_read_before_a_slice_committed_is_not_stored(self) -> None:
        follow("ann", "bob")
        settle()
        reading = Slowly("ann")
        reading.step()  # looks, and leaves its mark
        reading.step()  # reads PostgreSQL
        post("bob")
        settle()
        assert reading.finish().ids == []
        assert_right("ann", hit=False)
        assert_right("ann", hit=True)

    def test_nor_one_that_read_before_its_user_posted(self) -> None:
        reading = Slowly("ann")
        reading.step()
        reading.step()
        post("ann")
        settle()
        assert reading.finish().ids == []
        assert_right("ann", hit=False)

    def test_one_that_began_behind_another_is_stored_alone(self) -> None:
        first, second = Slowly("ann"), Slowly("ann")
        first.step()
        first.step()
        second.step()
        first.finish()
        assert cache.kept_feeds(["ann"]) == {}
        second.finish()
        assert list(cache.kept_feeds(["ann"])) == ["ann"]

    def test_one_that_did_not_see_a_follow_is_not_believed(self) -> None:
        post("bob")
        settle()
        reading = Slowly("ann")
        reading.step()
        reading.step()
        follow("ann", "bob")  # marks nothing: its handler has not run
        assert reading.finish().ids == []
        assert_right("ann", hit=False)

    @pytest.mark.parametrize(
        "answer", [None, [redis.ResponseError("READONLY")]], ids=["none", "an error"]
    )
    def test_nor_one_whose_mark_was_not_confirmed(self, cached: int, answer: Any) -> None:
        """In place of a cached feed that is not believed. The mark is set when a slice has long been
        finished, of which what was read knows nothing."""
        follow("ann", "eve")
        reading = Slowly("ann")
        reading.step()  # looks
        reading.step()  # asks what has changed: the follow
        mark = reading.not_answered(answer)
        reading.step()  # reads PostgreSQL
        post("bob")
        settle()
        for command in mark:
            cache.ask(command)
        assert reading.finish().ids == [cached]
        assert cache.kept_feeds(["ann"]) == {}
        assert_right("ann", hit=False)

    def test_an_empty_feed_is_kept_too(self) -> None:
        assert_right("nobody", hit=False)
        assert_right("nobody", hit=True)

    def test_a_page_that_reaches_further_than_what_is_kept_is_read(self) -> None:
        follow("ann", "bob")
        for _ in range(60):
            post("bob")
        settle()
        assert_right("ann", hit=False)
        page = ask("ann", 100)
        assert (page.ids, page.hit) == (truth("ann"), False)
        assert ask("ann", 100).hit

    def test_ids_that_differ_in_their_last_bits(self, cached: int) -> None:
        """Far above 2^53, where a double knows every sixteenth number."""
        first = new_id()
        made = [first + step for step in (8, 2, 14, 0, 6)]
        for id_ in made:
            post("bob", id_)
            settle()
        page = ask("ann")
        assert (list(page.ids), page.hit) == ([*sorted(made, reverse=True), cached], True)
        delete(first + 6)
        assert_right("ann", hit=True)

    def test_a_feed_is_kept_for_so_long_and_not_longer_because_it_grows(
        self, cached: int, settings: Any
    ) -> None:
        keys = set(cache.ask(("KEYS", "feed*"))) - {b"feeds:nudge"}
        assert len(keys) == 2  # the feed, and the list of those that are kept
        for key in keys:
            cache.ask(("EXPIRE", key, 100))
        post("bob")
        settle()
        assert_right("ann", hit=True)
        assert all(0 < cache.ask(("TTL", key)) <= 100 for key in keys)
        cache.touch_users(["ann"])
        assert_right("ann", hit=False)
        assert all(100 < cache.ask(("TTL", key)) <= settings.FEED_CACHE_SECONDS for key in keys)

    def test_the_number_of_feeds_is_bounded(self, settings: Any) -> None:
        settings.FEED_CACHE_FEEDS = 3
        users = [f"user-{place}" for place in range(6)]
        for user in users:
            ask(user)
        assert len(cache.kept_feeds(users)) == 3
        settings.FEED_CACHE_FEEDS = 0
        assert not ask(users[-1]).hit


class TestWhatComesLate:
    """A worker was stopped between its COMMIT and the cache, and goes on much later."""

    def test_a_post_that_was_deleted_and_forgotten_does_not_come_back(
        self, cached: int, monkeypatch: Any
    ) -> None:
        late = post("bob")
        apply_events()
        written = fanout_posts.write_entries(claim(SliceKind.POST))
        delete(late)
        self.forget_all_changes(monkeypatch)
        assert_right("ann", hit=False)  # filled again, and has never seen it
        assert_right("ann", hit=True)
        cache.add_entries(written.entries, as_of=written.as_of)
        assert ask("ann").ids == [cached]

    def test_nor_does_one_of_who_is_followed_no_more(self, cached: int, monkeypatch: Any) -> None:
        post("bob")
        apply_events()
        written = fanout_posts.write_entries(claim(SliceKind.POST))
        unfollow("ann", "bob")
        assert_right("ann", hit=False)
        assert_right("ann", hit=True)
        cache.add_entries(written.entries, as_of=written.as_of)
        assert ask("ann").ids == []

    @staticmethod
    def forget_all_changes(monkeypatch: Any) -> None:
        FeedChange.objects.update(at="2026-01-01T00:00:00Z")
        assert prune_changes() > 0
        monkeypatch.setattr(changes, "CHANGES", Changes())


class TestForgetting:
    def test_a_new_process_does_not_believe_what_pruned_changes_are_about(
        self, cached: int, monkeypatch: Any
    ) -> None:
        """Though Redis has kept the feed for longer than it was told."""
        delete(cached)
        self.prune(chunk=1)
        monkeypatch.setattr(changes, "CHANGES", Changes())
        assert_right("ann", hit=False)
        assert_right("ann", hit=True)

    def test_nor_does_one_that_has_not_asked_for_so_long(self, cached: int) -> None:
        delete(cached)
        self.prune()
        assert_right("ann", hit=False)
        assert_right("ann", hit=True)

    def test_nor_one_that_asked_before_a_long_transaction_ended(self, cached: int) -> None:
        with held_open(lambda: delete(cached)):
            post("eve")
            assert_right("ann", hit=True)  # asks, and sees that one is running
        self.prune()
        assert_right("ann", hit=False)

    @staticmethod
    def prune(**how: int) -> None:
        """All of them, as if they were old."""
        FeedChange.objects.update(at="2026-01-01T00:00:00Z")
        assert prune_changes(**how) > 0
        assert [row.kind for row in FeedChange.objects.all()] == ["pruned"]

    def test_a_change_behind_one_that_is_young_is_not_pruned(self, cached: int) -> None:
        delete(post("eve"))
        first = FeedChange.objects.earliest("id")
        FeedChange.objects.exclude(id=first.id).update(at="2026-01-01T00:00:00Z")
        assert prune_changes() == 0

    def test_a_process_forgets_what_no_feed_can_miss(self, cached: int) -> None:
        delete(cached)
        assert ask("ann").ids == []
        assert changes.CHANGES.deleted == {cached}
        changes.CHANGES.margin_seconds = -1_000_000
        delete(post("eve"))
        # With what was to be left out of them goes the belief in feeds that may hold it.
        assert_right("ann", hit=False)
        assert not changes.CHANGES.deleted
        assert_right("ann", hit=True)

    def test_one_that_forgets_while_a_page_is_made(self, cached: int, monkeypatch: Any) -> None:
        """Another thread does, between the look at what was deleted and the question of belief."""
        delete(cached)
        assert ask("ann").hit
        ids = hits._ids

        def forgetful(*of: Any) -> Any:
            changes.CHANGES.margin_seconds = -1_000_000
            changes.CHANGES._forget(1 << 62)
            return ids(*of)

        monkeypatch.setattr(hits, "_ids", forgetful)
        page = ask("ann")
        assert (list(page.ids), page.hit) == ([], False)

    def test_a_process_that_was_idle_reads_no_more_than_a_new_one(self, cached: int) -> None:
        """What did not fit may be about any feed, so older ones are not believed."""
        others = [post("eve") for _ in range(4)]
        assert ask("ann").hit
        changes.CHANGES.at_once = 3
        for each in (cached, *others):
            delete(each)
        assert_right("ann", hit=False)
        assert changes.CHANGES.deleted == set(others[1:])
        assert_right("ann", hit=True)

    def test_nor_of_transactions_that_were_running(self, cached: int) -> None:
        changes.CHANGES.at_once = 3
        others = [post("eve") for _ in range(3)]
        with held_open(lambda: delete(cached, *others)):
            post("joe")
            assert_right("ann", hit=True)  # asks, and sees that one is running
        assert_right("ann", hit=False)
        assert_right("ann", hit=True)
