"""How long a post takes to the feeds of its followers, with the whole pipeline running."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import psycopg
import uvloop

from devtools.benchmarks.cpu import seconds_of_stack
from devtools.benchmarks.feeds.world import settle
from devtools.benchmarks.report import BenchFigure
from devtools.localstack import LocalStack
from loadtest.client import Client

__all__ = ["Lag"]

SMALL_AUTHORS, SMALL_FOLLOWERS = 200, 20
LARGE_FOLLOWERS = 9_999
RATE = 20.0  # lone posts a second
LARGE_RATE = 3.0
PATIENCE = 60.0
# Between two looks for a post: at first so many seconds, then so much of its age. Looks that came as
# often for an old one would be a load of their own, the larger the later everything is.
LOOKS_EVERY, LOOKS_WITHIN = 0.005, 0.05
_OPEN = """
    SELECT EXISTS (SELECT FROM feed_slices WHERE post_id = %s) OR NOT EXISTS (
        SELECT FROM feed_entries WHERE user_id = 'far-1' AND post_id = %s)
"""


@dataclass
class SeenPost:
    """Milliseconds from sending a post until it was found."""

    milliseconds: list[float] = field(default_factory=list)

    def percentile(self, percent: int) -> float:
        if len(self.milliseconds) < 2:
            return float("nan")
        return statistics.quantiles(self.milliseconds, n=100)[percent - 1]


class Lag:
    """The stack with all its processes."""

    def __init__(self, stack: LocalStack, seconds: float) -> None:
        self._stack, self._url, self._seconds = stack, stack.env["DATABASE_URL"], seconds
        self._authors = itertools.cycle(range(SMALL_AUTHORS))

    def figures(self) -> list[BenchFigure]:
        self._fill()
        calm, _, calm_cpu = uvloop.run(self._measured(large_rate=0.0))
        disturbed, large, cpu = uvloop.run(self._measured(large_rate=LARGE_RATE))
        name = f"lone post → visible in a follower's feed, {RATE:.0f} posts/s"
        count = f"{len(calm.milliseconds)} posts; {calm_cpu}"
        return [
            BenchFigure(
                name=f"{name}, p50", value=calm.percentile(50), unit="ms", at_most=100, note=count
            ),
            BenchFigure(name=f"{name}, p99", value=calm.percentile(99), unit="ms", at_most=300),
            BenchFigure(
                name="the same p99 while an author with 9,999 followers posts 3 times a second",
                value=disturbed.percentile(99),
                unit="ms",
                at_most=2 * calm.percentile(99),
                note=f"p50 {disturbed.percentile(50):.0f} ms; at most twice the undisturbed one; {cpu}",
            ),
            BenchFigure(
                name="his posts, from POST to the last of his followers' feeds, p50",
                value=large.percentile(50),
                unit="ms",
                at_most=400,
                note=f"{len(large.milliseconds)} posts, p99 {large.percentile(99):.0f} ms",
            ),
        ]

    def _fill(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO follows (follower_id, followee_id, backfilled)"
                " SELECT 'near-' || author || '-' || place, 'small-' || author, true"
                " FROM generate_series(0, %s - 1) AS author, generate_series(0, %s - 1) AS place",
                (SMALL_AUTHORS, SMALL_FOLLOWERS),
            )
            connection.execute(
                "INSERT INTO follows (follower_id, followee_id, backfilled)"
                " SELECT 'far-' || place, 'big', true FROM generate_series(1, %s) AS place",
                (LARGE_FOLLOWERS,),
            )
            connection.execute(
                "INSERT INTO feed_authors (author_id, followers)"
                " SELECT followee_id, count(*) FROM follows"
                " WHERE followee_id LIKE 'small-%' OR followee_id = 'big' GROUP BY 1"
            )
        settle(self._url)

    async def _measured(self, *, large_rate: float) -> tuple[SeenPost, SeenPost, str]:
        """Lone posts, those of the large author, and whose processor time it was."""
        client = Client(self._stack.base_url)
        small, large = SeenPost(), SeenPost()
        before, begin = seconds_of_stack(self._stack), time.perf_counter()
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as database:

            async def lone_post(number: int) -> None:
                author = next(self._authors)
                follower = f"near-{author}-{number % SMALL_FOLLOWERS}"
                await self._until_shown(client, f"small-{author}", follower, small)

            async def large_post(_: int) -> None:
                await self._until_last(client, database, large)

            await asyncio.gather(
                self._by_the_clock(RATE, lone_post), self._by_the_clock(large_rate, large_post)
            )
        client.close()
        seconds = time.perf_counter() - begin
        return small, large, _cores(before, seconds_of_stack(self._stack), seconds)

    async def _by_the_clock(self, rate: float, one: Callable[[int], Awaitable[None]]) -> None:
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as posts:
            for number in range(int(self._seconds * rate)):
                await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
                posts.create_task(_run(one(number)))

    @staticmethod
    async def _until_shown(client: Client, author: str, follower: str, seen: SeenPost) -> None:
        begin = time.perf_counter()
        post_id = await _post(client, author)

        async def shown() -> bool:
            reply = await client.request(b"GET", f"/feeds/{follower}".encode())
            return post_id in json.loads(reply.body)["post_ids"]

        await _until(shown, begin, seen)

    @staticmethod
    async def _until_last(
        client: Client, database: psycopg.AsyncConnection[tuple[bool]], seen: SeenPost
    ) -> None:
        """The last feed has it when as many have it as follow."""
        begin = time.perf_counter()
        post_id = await _post(client, "big")

        async def everywhere() -> bool:
            cursor = await database.execute(_OPEN, (post_id, post_id))
            row = await cursor.fetchone()
            return row is not None and not row[0]

        await _until(everywhere, begin, seen)


async def _run(work: Awaitable[None]) -> None:
    await work


async def _post(client: Client, author: str) -> int:
    body = json.dumps({"author_id": author, "content": "Something that happened to me today."})
    reply = await client.request(b"POST", b"/posts", body.encode())
    return int(json.loads(reply.body)["post_id"])


async def _until(condition: Callable[[], Awaitable[bool]], begin: float, seen: SeenPost) -> None:
    while (age := time.perf_counter() - begin) < PATIENCE:
        if await condition():
            seen.milliseconds.append(1000 * (time.perf_counter() - begin))
            return
        await asyncio.sleep(max(LOOKS_EVERY, LOOKS_WITHIN * age))
    raise TimeoutError(f"not visible after {PATIENCE:.0f} s")


def _cores(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> str:
    """Whose processor time it was, in hundredths of a core."""
    spent = {name: 100 * (after[name] - before[name]) / seconds for name in after}
    named = sorted(spent.items(), key=lambda each: -each[1])
    return "% of a core: " + ", ".join(f"{name} {used:.0f}" for name, used in named if used >= 1)
