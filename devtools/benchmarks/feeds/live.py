"""How long a post takes to the open sockets of its author's followers."""

from __future__ import annotations

import json
import time

import psycopg
import uvloop

from devtools.benchmarks.feeds.world import settle
from devtools.benchmarks.hot_paths.serving import OURS, serving
from devtools.benchmarks.report import BenchFigure
from devtools.benchmarks.status_feed.listeners import Delays, figures_of, measure
from devtools.localstack import LocalStack
from loadtest.client import Client

__all__ = ["Live"]

RATE = 5.0  # posts a second
AUTHOR = "told"
_FOLLOWS = """
    INSERT INTO follows (follower_id, followee_id, backfilled)
    SELECT 'socket-' || place, %s, true FROM generate_series(0, %s - 1) AS place
    ON CONFLICT DO NOTHING
"""


class Live:
    """A stack without our processes. `sockets` followers of one author have theirs open."""

    def __init__(self, stack: LocalStack, seconds: float, sockets: int) -> None:
        self._stack, self._seconds, self._sockets = stack, seconds, sockets

    def figures(self) -> list[BenchFigure]:
        """From the request on."""
        database = self._stack.env["DATABASE_URL"]
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(_FOLLOWS, (AUTHOR, self._sockets))
        settle(database)
        with serving(self._stack, OURS, WEBSOCKETS_PER_CALLER="0", LOG_LEVEL="WARNING") as served:
            delays = uvloop.run(self._delays(served.url))
        return figures_of(f"a post to {self._sockets:,} open followers, {RATE:g}/s", delays)

    async def _delays(self, url: str) -> Delays:
        client = Client(url)
        body = json.dumps({"author_id": AUTHOR, "content": "Something that happened to me."})

        async def post(_: int) -> float:
            begin = time.perf_counter()
            reply = await client.request(b"POST", b"/posts", body.encode())
            if reply.status != 202:
                raise RuntimeError(f"{reply.status}: {reply.body!r}")
            return begin

        try:
            return await measure(
                int(url.rpartition(":")[2]),
                [f"/ws/feeds/socket-{place}" for place in range(self._sockets)],
                post,
                per_second=RATE,
                seconds=self._seconds,
            )
        finally:
            client.close()
