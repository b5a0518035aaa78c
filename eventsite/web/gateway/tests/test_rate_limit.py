"""The limiter on a real Redis: exact under concurrency, to the millisecond, and open when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis
from django.conf import settings

from devtools.testing.lost_answers import losing_answers
from devtools.testing.processes import free_port
from devtools.testing.refusing_redis import REFUSALS, refusing
from devtools.testing.weather import Fault, proxy_to
from eventsite.web.gateway import metrics
from eventsite.web.gateway.rate_limit import TAKE, RateLimit, RateLimiter, bucket_of
from eventsite.web.redis_with_breaker import RedisWithBreaker

SLOW = "1/h burst 50"  # nothing comes back during a test
SECOND = 1_000_000
PATIENT = 5.0  # seconds; a machine that is busy with other tests answers late
PORT = urlsplit(settings.REDIS_URL).port or 6379


@pytest.fixture
def caller() -> str:
    return f"key:{uuid4()}"


@pytest.fixture
def server() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client


class Bucket:
    """The script itself, with the time of the test's choice (microseconds)."""

    def __init__(self, server: redis.Redis, limit: RateLimit) -> None:
        self.server, self.limit, self.name = server, limit, bucket_of(f"test:{uuid4()}")

    def take(self, wanted: int, at: float) -> tuple[int, int]:
        taken, milliseconds = self.server.eval(
            TAKE, 1, self.name, repr(self.limit.per_second), self.limit.burst, wanted, round(at)
        )
        return taken, milliseconds


@pytest.fixture
def bucket(server: redis.Redis) -> Callable[[str], Bucket]:
    return lambda text: Bucket(server, RateLimit.parse(text))


# The setting


@pytest.mark.parametrize(
    ("text", "per_second", "burst"),
    [
        ("100/s burst 200", 100, 200),
        ("100/s", 100, 100),
        ("0.5/s", 0.5, 1),
        ("300/m burst 10", 5, 10),
        ("1/h", 1 / 3600, 1),
    ],
)
def test_limits(text: str, per_second: float, burst: int) -> None:
    assert RateLimit.parse(text) == RateLimit(per_second, burst, text)


@pytest.mark.parametrize(
    "text", ["100", "100/d", "-1/s", "0/s", "1/s burst 0", "fast", "1/s burst"]
)
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(ValueError, match="RATE_LIMIT="):
        RateLimit.parse(text)


# The script


def test_a_bucket_gives_its_burst_and_says_when_to_come_again(
    bucket: Callable[[str], Bucket],
) -> None:
    ten = bucket("10/s burst 5")
    assert [ten.take(1, 0)[0] for _ in range(6)] == [1, 1, 1, 1, 1, 0]
    assert ten.take(1, 0) == (0, 100)
    assert ten.take(1, 40_000) == (0, 60)
    assert ten.take(1, 99_999) == (0, 1)
    assert ten.take(1, 100_000)[0] == 1


def test_refills_below_a_second_and_never_over_its_burst(bucket: Callable[[str], Bucket]) -> None:
    ten = bucket("10/s burst 5")
    assert ten.take(9, 0)[0] == 5
    assert ten.take(9, 0.35 * SECOND)[0] == 3
    assert ten.take(9, 0.40 * SECOND)[0] == 1  # the half that was left, and a half
    assert ten.take(9, 3600 * SECOND)[0] == 5


def test_asking_often_neither_gains_nor_loses(bucket: Callable[[str], Bucket]) -> None:
    """In thousands of steps of uneven length the same as in one."""
    limit = bucket("7/s burst 1")
    limit.take(1, 0)
    got = sum(limit.take(1, step * 3_331)[0] for step in range(1, 6001))
    seconds = 6000 * 3_331 / SECOND
    assert got == pytest.approx(seconds * 7, abs=1.01 + seconds * 7 * 7 * 0.003331)
    even = bucket("100/s burst 1")
    even.take(1, 0)
    assert sum(even.take(1, step * 1_000)[0] for step in range(1, 10_001)) == 1000


def test_rounding_holds_back_no_token(bucket: Callable[[str], Bucket]) -> None:
    """A third of a token three times is a token, though each third was written down rounded."""
    hourly = bucket("1/h burst 1")
    hourly.take(1, 0)
    assert [hourly.take(1, hour * 3600 * SECOND / 3)[0] for hour in (1, 2, 3)] == [0, 0, 1]


def test_a_clock_that_was_set_back_neither_stops_nor_gives(bucket: Callable[[str], Bucket]) -> None:
    ten = bucket("10/s burst 5")
    assert ten.take(5, 3600 * SECOND)[0] == 5
    assert ten.take(1, 0) == (0, 100)
    assert ten.take(1, 0.1 * SECOND)[0] == 1


def test_a_full_bucket_leaves_redis(bucket: Callable[[str], Bucket], server: redis.Redis) -> None:
    ten = bucket("10/s burst 50")
    ten.take(20, 0)
    assert 2000 < server.pttl(ten.name) <= 3000
    ten.take(30, 0)
    assert 5000 < server.pttl(ten.name) <= 6000


# The limiter


def with_limiter(
    text: str, use: Callable[[RateLimiter], Awaitable[None]], url: str | None = None
) -> None:
    async def run() -> None:
        limiter = RateLimiter(
            RateLimit.parse(text),
            url or settings.REDIS_URL,
            patience=PATIENT,
            probes_every=0.02,
        )
        await limiter.start()
        try:
            await asyncio.wait_for(use(limiter), 60)
        finally:
            await limiter.close()

    asyncio.run(run())


def test_of_many_at_once_exactly_the_burst_goes_through(caller: str) -> None:
    async def use(limiter: RateLimiter) -> None:
        seconds = await asyncio.gather(*(limiter.take(caller) for _ in range(200)))
        assert seconds.count(0) == 50
        assert {each for each in seconds if each} == {3600}
        assert seconds == sorted(seconds)  # who came first goes first

    with_limiter(SLOW, use)


def test_processes_share_a_bucket(caller: str) -> None:
    """Two limiters, each with its own connection, at the same time."""

    async def use(limiter: RateLimiter) -> None:
        other = RateLimiter(limiter.limit, settings.REDIS_URL, patience=PATIENT)
        await other.start()

        async def one_by_one(mine: RateLimiter) -> list[int]:
            return [await mine.take(caller) for _ in range(60)]

        results = await asyncio.gather(one_by_one(limiter), one_by_one(other))
        await other.close()
        assert [*results[0], *results[1]].count(0) == 50

    with_limiter(SLOW, use)


def test_callers_do_not_share_one(caller: str) -> None:
    async def use(limiter: RateLimiter) -> None:
        asked = [limiter.take(f"{caller}:{number % 3}") for number in range(300)]
        seconds = await asyncio.gather(*asked)
        assert [seconds[number::3].count(0) for number in range(3)] == [50, 50, 50]

    with_limiter(SLOW, use)


def test_retry_after_is_rounded_up(caller: str) -> None:
    async def use(limiter: RateLimiter) -> None:
        assert await limiter.take(caller) == 0
        assert await limiter.take(caller) == 2  # after 1.4… s

    with_limiter("0.7/s burst 1", use)


def test_a_caller_who_hangs_up_disturbs_nobody(caller: str) -> None:
    async def use(limiter: RateLimiter) -> None:
        tasks = [asyncio.ensure_future(limiter.take(caller)) for _ in range(40)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1::2] == [0] * 20

    with_limiter(SLOW, use)


# Redis away


def failed_open() -> float:
    [family] = metrics.FAILED_OPEN.collect()
    return sum(sample.value for sample in family.samples if sample.name.endswith("_total"))


def test_without_redis_everybody_goes_through_and_is_counted(caller: str) -> None:
    async def use(limiter: RateLimiter) -> None:
        before = failed_open()
        assert await asyncio.gather(*(limiter.take(caller) for _ in range(100))) == [0] * 100
        assert failed_open() == before + 100

    with_limiter(SLOW, use, f"redis://127.0.0.1:{free_port()}/0")


def test_redis_lost_and_back(caller: str) -> None:
    with proxy_to("127.0.0.1", PORT) as proxy:

        async def use(limiter: RateLimiter) -> None:
            assert [await limiter.take(caller) for _ in range(51)] == [0] * 50 + [3600]
            before = failed_open()
            proxy.set(Fault.AWAY)
            assert [await limiter.take(caller) for _ in range(10)] == [0] * 10
            assert failed_open() == before + 10
            proxy.set(Fault.NONE)
            while await limiter.take(caller) == 0:  # until the probe was answered
                await asyncio.sleep(0.01)

        with_limiter(SLOW, use, f"redis://127.0.0.1:{proxy.port}/0")


def test_a_frozen_redis_is_waited_for_once(caller: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy_to("127.0.0.1", PORT) as proxy:

        async def use(limiter: RateLimiter) -> None:
            assert await limiter.take(caller) == 0
            limiter._redis.patience = 0.05
            limiter._redis.probes_every = 3600
            waits: list[float | None] = []
            really = asyncio.timeout

            def timeout(seconds: float | None) -> asyncio.Timeout:
                waits.append(seconds)
                return really(seconds)

            monkeypatch.setattr(asyncio, "timeout", timeout)
            before = failed_open()
            proxy.set(Fault.SILENT)
            together = await asyncio.gather(*(limiter.take(caller) for _ in range(100)))
            alone = [await limiter.take(caller) for _ in range(100)]
            assert (together, alone) == ([0] * 100, [0] * 100)
            assert waits == [0.05]
            assert failed_open() == before + 200

        with_limiter(SLOW, use, f"redis://127.0.0.1:{proxy.port}/0")


def test_a_redis_that_refuses_is_let_through(caller: str, server: redis.Redis) -> None:
    """Another type under the bucket's name stands for every error of the server itself."""
    server.set(bucket_of(caller), "x")

    async def use(limiter: RateLimiter) -> None:
        assert await limiter.take(caller) == 0

    with_limiter(SLOW, use)
    server.delete(bucket_of(caller))


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_redis_that_takes_no_writes_opens_the_breaker_once(
    kind: str, caller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may answer a PING, which says nothing of the buckets."""
    opened: list[Exception] = []
    really = RedisWithBreaker.open

    def opens(server: RedisWithBreaker, error: Exception) -> None:
        opened.append(error)
        really(server, error)

    monkeypatch.setattr(RedisWithBreaker, "open", opens)

    async def use(limiter: RateLimiter) -> None:
        assert [await limiter.take(caller) for _ in range(51)] == [0] * 50 + [3600]
        with refusing(kind, settings.REDIS_URL):
            for _ in range(40):
                assert await limiter.take(caller) == 0
                await asyncio.sleep(0.025)
            assert len(opened) == 1
        while await limiter.take(caller) == 0:
            await asyncio.sleep(0.01)
        assert len(opened) == 1

    with_limiter(SLOW, use)


def test_a_token_is_taken_once_when_the_answer_is_lost(caller: str, server: redis.Redis) -> None:
    with losing_answers("127.0.0.1", PORT) as proxy:

        async def use(limiter: RateLimiter) -> None:
            proxy.lose(b"EVAL")
            assert await limiter.take(caller) == 0
            assert proxy.lost == 1

        with_limiter(SLOW, use, f"redis://127.0.0.1:{proxy.port}/0")
    kept = server.hget(bucket_of(caller), "tokens")
    assert kept is not None
    assert float(kept) == 49
