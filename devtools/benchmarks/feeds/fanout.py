"""Entries a second, beside a bare INSERT … SELECT of as many rows into a table like theirs; and how long
one large author takes. All in this process and on one connection, so that they can be compared."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from django.conf import settings
from django.db import connection, transaction

from devtools.benchmarks.feeds.world import settle
from devtools.benchmarks.report import BenchFigure
from devtools.localstack import LocalStack
from feeds.fanout import work
from feeds.fanout.slices import SLICE_FOLLOWERS, inserting, of_buckets
from feeds.ids import EPOCH_MS, TIME_SHIFT
from feeds.models import SliceKind
from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.round_trips import RoundTrip, send

__all__ = ["FanOut"]

FOLLOWERS = 200
LARGE_FOLLOWERS = 9_999
FOLLOWED = 4  # authors that each user follows
POSTS_AT_ONCE = 64
LARGE_TURNS = 9
_FOLLOWS = """
    INSERT INTO follows (follower_id, followee_id, backfilled)
    SELECT 'user-' || reader, 'author-' || (reader %% {step} + place * {step}), true
    FROM generate_series(0, %(users)s - 1) AS reader, generate_series(0, {each} - 1) AS place
"""
_ENTRIES = """
    INSERT INTO feed_entries (user_id, post_id, author_id, follow_number)
    SELECT follower_id, id, author_id, number FROM posts
    JOIN follows ON followee_id = author_id AND active ORDER BY id, follower_id
"""
_BARE = """
    INSERT INTO bench_entries (user_id, post_id, author_id, follow_number)
    SELECT follower_id, post_id, followee_id, number
    FROM unnest(%s::bigint[], %s::text[]) AS fresh (post_id, author_id)
    JOIN follows ON followee_id = author_id AND active
    ON CONFLICT DO NOTHING
"""
_POSTS = """
    INSERT INTO posts (id, author_id, content, created_at)
    SELECT id, author_id, 'x', clock_timestamp()
    FROM unnest(%s::bigint[], %s::text[]) AS fresh (id, author_id)
"""


class FanOut:
    """`users` of whom each has a full window and follows four authors with 200 followers."""

    def __init__(self, stack: LocalStack, seconds: float, users: int) -> None:
        self._url, self._seconds, self._users = stack.env["DATABASE_URL"], seconds, users
        self._authors = users * FOLLOWED // FOLLOWERS
        self._ids = itertools.count(int(time.time() * 1000) - EPOCH_MS)
        self._next = itertools.count()

    def figures(self) -> list[BenchFigure]:
        filled = self._fill()
        bare = self._bare()
        rate, deleted = self._ours()
        large = sorted(self._large() for _ in range(LARGE_TURNS))
        return [
            BenchFigure(
                name=f"entries of authors with {FOLLOWERS} followers",
                value=rate,
                unit="/s",
                at_least=50_000,
                ceiling=bare,
                note=f"one process; {filled}; {deleted:,} trimmed meanwhile. Ceiling: bare INSERT … "
                "SELECT into a table like it, to reach 60 %",
            ),
            BenchFigure(
                name=f"one author with {LARGE_FOLLOWERS:,} followers, slices to the last feed",
                value=1000 * large[len(large) // 2],
                unit="ms",
                at_most=200,
                note=f"median of {LARGE_TURNS}, slowest {1000 * large[-1]:.0f} ms; one process",
            ),
        ]

    def _fill(self) -> str:
        """Windows that are full, a little below the size at which they are trimmed."""
        posts = int(settings.FEED_WINDOW * 1.1) * self._authors // FOLLOWED
        with connection.cursor() as cursor:
            cursor.execute(
                "TRUNCATE posts, follows, feed_entries, feed_windows, feed_authors, feed_slices,"
                " feed_log, feed_changes"
            )
            step = self._authors // FOLLOWED
            cursor.execute(_FOLLOWS.format(step=step, each=FOLLOWED), {"users": self._users})
            cursor.execute(
                "INSERT INTO feed_authors (author_id, followers)"
                " SELECT followee_id, count(*) FROM follows GROUP BY 1"
            )
            cursor.execute(
                "INSERT INTO follows (follower_id, followee_id, backfilled)"
                " SELECT 'user-' || reader, 'large', true FROM generate_series(1, %s) AS reader",
                (LARGE_FOLLOWERS,),
            )
            cursor.execute("INSERT INTO feed_authors VALUES ('large', %s)", (LARGE_FOLLOWERS,))
            self._post(posts)
            cursor.execute(_ENTRIES)
            cursor.execute("CREATE TABLE bench_entries (LIKE feed_entries INCLUDING ALL)")
            cursor.execute("INSERT INTO bench_entries SELECT * FROM feed_entries")
            entries = cursor.rowcount
        settle(self._url)
        return f"{self._users:,} users with windows of {settings.FEED_WINDOW}, {entries:,} entries"

    def _post(self, count: int) -> tuple[list[int], list[str]]:
        ids = [next(self._ids) << TIME_SHIFT for _ in range(count)]
        authors = [f"author-{next(self._next) % self._authors}" for _ in ids]
        self._insert(ids, authors)
        return ids, authors

    @staticmethod
    def _insert(ids: Sequence[int], authors: Sequence[str]) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_POSTS, (array_literal(ids), text_array_literal(authors)))

    def _bare(self) -> float:
        """The rows alone, as many posts in each statement."""
        count, begin = 0, time.perf_counter()
        with connection.cursor() as cursor:
            while time.perf_counter() < begin + self._seconds:
                ids = [next(self._ids) << TIME_SHIFT for _ in range(POSTS_AT_ONCE)]
                authors = [f"author-{next(self._next) % self._authors}" for _ in ids]
                cursor.execute(_BARE, (array_literal(ids), text_array_literal(authors)))
                count += cursor.rowcount
            seconds = time.perf_counter() - begin
            cursor.execute("DROP TABLE bench_entries")
        settle(self._url)
        return count / seconds

    def _ours(self) -> tuple[float, int]:
        """Entries a second, and how many were trimmed. Posts and slices are there before."""
        before = self._count()
        posts = 0
        spent = 0.0
        while spent < self._seconds:
            with transaction.atomic():
                ids, authors = self._post(POSTS_AT_ONCE * 8)
                slices = [
                    each
                    for id_, author in zip(ids, authors, strict=True)
                    for each in of_buckets(
                        SliceKind.POST, author, FOLLOWERS, each=SLICE_FOLLOWERS, post_id=id_
                    )
                ]
                send(RoundTrip(inserting(slices)))
            begin = time.perf_counter()
            self._work_off(len(slices))
            spent += time.perf_counter() - begin
            posts += len(ids)
        written = posts * FOLLOWERS
        return written / spent, before + written - self._count()

    def _large(self) -> float:
        """Seconds from the commit of its slices until all feeds have one post."""
        id_ = next(self._ids) << TIME_SHIFT
        with transaction.atomic():
            self._insert([id_], ["large"])
            slices = of_buckets(
                SliceKind.POST, "large", LARGE_FOLLOWERS, each=SLICE_FOLLOWERS, post_id=id_
            )
            send(RoundTrip(inserting(slices)))
        begin = time.perf_counter()
        self._work_off(len(slices))
        return time.perf_counter() - begin

    @staticmethod
    def _work_off(slices: int) -> None:
        finished = 0
        while finished < slices:
            finished += work.apply_slices()

    @staticmethod
    def _count() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM feed_entries")
            return int(cursor.fetchone()[0])
