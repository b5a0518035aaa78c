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
from eventsite.web.redis_with_breaker import RedisWithBreaker

PORT = urlsplit(settings.REDIS_URL).port or 6379
PATIENT = 30.0  # seconds; a machine that is busy with other tests answers late


@asynccontextmanager
async def server_at(port: int) -> AsyncIterator[RedisWithBreaker]:
    server = RedisWithBreaker(
        f"redis://127.0.0.1:{port}/0",
        patience=PATIENT,
        logger="test",
        lost="lost",
        back="back",
        probes_every=0.01,
    )
    try:
        yield server
    finally:
        await server.close()


def behind_a_proxy(check: Callable[[RedisWithBreaker, Proxy], Awaitable[None]]) -> None:
    async def run() -> None:
        with proxy_to("127.0.0.1", PORT) as proxy:
            async with server_at(proxy.port) as server:
                await check(server, proxy)

    asyncio.run(run())


async def is_back(server: RedisWithBreaker) -> None:
    async with asyncio.timeout(60):
        while await server.replies([("PING",)]) is None:
            await asyncio.sleep(0.01)


def test_replies_come_in_order_and_a_refusal_is_one() -> None:
    key = f"test:{uuid4()}"

    async def check(server: RedisWithBreaker, proxy: Proxy) -> None:
        assert await server.replies([("SET", key, b"\xff", "EX", 60)]) == [True]
        value, refused, none = (
            await server.replies([("GET", key), ("LPOP", key), ("GET", "x" + key)]) or ()
        )
        assert (value, none) == (b"\xff", None)
        assert isinstance(refused, redis.ResponseError)
        [alone] = await server.replies([("LPOP", key)]) or ()
        assert isinstance(alone, redis.ResponseError)

    behind_a_proxy(check)


def test_one_that_breaks_off_is_left_alone_until_it_is_back() -> None:
    async def check(server: RedisWithBreaker, proxy: Proxy) -> None:
        assert await server.replies([("PING",)])
        proxy.set(Fault.AWAY)
        assert await server.replies([("PING",)]) is None
        assert await server.replies([("PING",)]) is None
        proxy.set(Fault.NONE)
        await is_back(server)

    behind_a_proxy(check)


def test_one_that_hangs_keeps_one_batch_waiting_and_no_other() -> None:
    async def check(server: RedisWithBreaker, proxy: Proxy) -> None:
        assert await server.replies([("PING",)])
        server.patience = 0.01
        proxy.set(Fault.SILENT)
        assert await server.replies([("PING",)]) is None
        server.patience = 3600.0
        async with asyncio.timeout(20):  # it is not asked
            assert await server.replies([("PING",)]) is None
        proxy.set(Fault.AWAY)
        proxy.set(Fault.NONE)
        server.patience = PATIENT
        await is_back(server)

    behind_a_proxy(check)


def test_one_that_was_never_there() -> None:
    async def run() -> None:
        async with server_at(free_port()) as server:
            assert await server.replies([("PING",)]) is None

    asyncio.run(run())
