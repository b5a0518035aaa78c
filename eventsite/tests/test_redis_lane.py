"""Commands of hot paths on a real Redis: all in one round trip, and nobody waits for one that is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import redis
from django.conf import settings

from devtools.testing.processes import free_port
from devtools.testing.weather import Fault, Proxy, proxy_to
from eventsite.web.redis_lane import RedisLane

PORT = urlsplit(settings.REDIS_URL).port or 6379
PATIENT = 30.0  # seconds; a machine that is busy with other tests answers late


@asynccontextmanager
async def lane_to(port: int) -> AsyncIterator[RedisLane]:
    lane = RedisLane(
        f"redis://127.0.0.1:{port}/0",
        patience=PATIENT,
        logger="test",
        lost="lost",
        back="back",
        probes_every=0.01,
    )
    try:
        yield lane
    finally:
        await lane.close()


def behind_a_proxy(check: Callable[[RedisLane, Proxy], Awaitable[None]]) -> None:
    async def run() -> None:
        with proxy_to("127.0.0.1", PORT) as proxy:
            async with lane_to(proxy.port) as lane:
                await check(lane, proxy)

    asyncio.run(run())


async def is_back(lane: RedisLane) -> None:
    async with asyncio.timeout(60):
        while await lane.replies([("PING",)]) is None:
            await asyncio.sleep(0.01)


def test_replies_come_in_order_and_a_refusal_is_one() -> None:
    key = f"test:{uuid4()}"

    async def check(lane: RedisLane, proxy: Proxy) -> None:
        assert await lane.replies([("SET", key, b"\xff", "EX", 60)]) == [True]
        value, refused, none = (
            await lane.replies([("GET", key), ("LPOP", key), ("GET", "x" + key)]) or ()
        )
        assert (value, none) == (b"\xff", None)
        assert isinstance(refused, redis.ResponseError)
        [alone] = await lane.replies([("LPOP", key)]) or ()
        assert isinstance(alone, redis.ResponseError)

    behind_a_proxy(check)


def test_one_that_breaks_off_is_left_alone_until_it_is_back() -> None:
    async def check(lane: RedisLane, proxy: Proxy) -> None:
        assert await lane.replies([("PING",)])
        proxy.set(Fault.AWAY)
        assert await lane.replies([("PING",)]) is None
        assert await lane.replies([("PING",)]) is None
        proxy.set(Fault.NONE)
        await is_back(lane)

    behind_a_proxy(check)


def test_one_that_hangs_keeps_one_batch_waiting_and_no_other() -> None:
    async def check(lane: RedisLane, proxy: Proxy) -> None:
        assert await lane.replies([("PING",)])
        lane.patience = 0.01
        proxy.set(Fault.SILENT)
        assert await lane.replies([("PING",)]) is None
        lane.patience = 3600.0
        async with asyncio.timeout(20):  # it is not asked
            assert await lane.replies([("PING",)]) is None
        proxy.set(Fault.AWAY)
        proxy.set(Fault.NONE)
        lane.patience = PATIENT
        await is_back(lane)

    behind_a_proxy(check)


def test_one_that_was_never_there() -> None:
    async def run() -> None:
        async with lane_to(free_port()) as lane:
            assert await lane.replies([("PING",)]) is None

    asyncio.run(run())
