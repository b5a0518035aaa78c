"""The paced limiter, in a real Redis: its log, its shares, and what becomes of it when Redis forgets."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from django.conf import settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from devtools.testing.weather import Fault, proxy_to
from outbox.pacing.limiter import Draw, LocalShare, PacedLimiter

SHARES = {"high": 7, "normal": 2, "low": 1}
SECOND = 1_000_000
START = 1_700_000_000 * SECOND


@pytest.fixture(scope="module")
def server() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client


def limiter_on(server: redis.Redis, limit: float, *, fresh: bool = True) -> PacedLimiter:
    limiter = PacedLimiter("test", per_second=limit, shares=SHARES, server=server)
    if fresh:
        server.delete(*limiter.keys)
    return limiter


def log_of(server: redis.Redis, limiter: PacedLimiter) -> list[tuple[int, int]]:
    """(microseconds, tokens) of the limiter's own log, less what was given back."""
    _, log, given = limiter.keys
    found = []
    client: Any = server  # whose stubs take every answer for that of an asynchronous one
    for request, at in client.zrange(log, 0, -1, withscores=True):
        parts = [int(part) for part in client.hget(given, request).split(b":")]
        found.append((int(at), parts[0] - sum(parts[1:])))
    return found


def most_in_a_second(log: list[tuple[int, int]]) -> int:
    """Over every window that begins with an entry: no other can have more."""
    return max(
        (sum(count for at, count in log if start <= at <= start + SECOND) for start, _ in log),
        default=0,
    )


steps = st.lists(
    st.tuples(
        st.sampled_from(list(SHARES)),
        st.integers(1, 40),  # wanted
        st.integers(0, 400_000),  # microseconds later
        st.integers(0, 3),  # given back: 0 none, 1 some, 2 all; 3: the draw comes twice
    ),
    max_size=60,
)


class TestTheLog:
    @given(steps=steps, limit=st.sampled_from([1, 7, 100, 1000]))
    @hypothesis_settings(max_examples=60)
    def test_no_window_of_a_second_has_more_than_the_limit(
        self, steps: list[tuple[str, int, int, int]], limit: int, server: redis.Redis
    ) -> None:
        limiter = limiter_on(server, limit)
        now = START
        entries: list[tuple[int, int]] = []
        for number, (asker, wanted, later, what) in enumerate(steps):
            now += later
            tokens, wait_ms = limiter.ask(f"r{number}", asker, wanted, at=now)
            assert 0 <= tokens <= wanted
            assert (wait_ms > 0) == (tokens < wanted)
            if what == 3:
                assert limiter.ask(f"r{number}", asker, wanted, at=now + 5)[0] == tokens
            used = tokens
            if what in (1, 2) and tokens:
                back = tokens if what == 2 else (tokens + 1) // 2
                draw = Draw(tokens, 0, f"r{number}")
                assert limiter.give_back(draw, asker, back) == back
                assert limiter.give_back(draw, asker, back) == 0  # sent again
                used -= back
            entries.append((now, used))
        assert most_in_a_second(entries) <= limit

    def test_many_at_once_by_the_clock_of_redis(self, server: redis.Redis) -> None:
        """Threads with clients of their own ask as fast as they can."""
        limiter = limiter_on(server, 200)
        until = time.monotonic() + 1.6
        given = []

        def ask(asker: str) -> None:
            mine = limiter_on(redis.Redis.from_url(settings.REDIS_URL), 200, fresh=False)
            while time.monotonic() < until:
                draw = mine.draw(asker, random.randint(1, 30))
                given.append(draw.tokens)
                if draw.tokens > 3:
                    mine.give_back(draw, asker, 1)

        threads = [threading.Thread(target=ask, args=(asker,)) for asker in (*SHARES, *SHARES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        log = log_of(server, limiter)
        assert sum(given) > 200  # more than one window
        assert most_in_a_second(log) <= 200

    def test_a_slice_is_a_tenth_of_a_second(self, server: redis.Redis) -> None:
        """Three of them wait for who comes late, each for a draw of its own."""
        limiter = limiter_on(server, 100)
        limiter.ask("first", "high", 1, at=START)

        later = START + 60 * SECOND
        asked = [limiter.ask(f"later-{number}", "high", 500, at=later) for number in range(4)]
        assert [tokens for tokens, _ in asked] == [10, 10, 10, 0]

    def test_who_comes_late_gets_nearly_the_whole_limit(self, server: redis.Redis) -> None:
        """Rounds of a slow machine: a quarter of a second each, then the draws that are due. The log costs
        a little: what came together in one second is free together in the next."""
        limiter = limiter_on(server, 100)
        now, given, number = START, 0, 0
        while now < START + 10 * SECOND:
            tokens, wait_ms = limiter.ask(f"slow-{number}", "high", 1000, at=now)
            given, number = given + tokens, number + 1
            now += 250_000 if wait_ms > 5 else 5_000
        assert 930 <= given <= 1010


class TestShares:
    @pytest.mark.parametrize(
        ("waiting", "expected"),
        [
            (("high", "normal", "low"), (7, 2, 1)),
            (("normal", "low"), (0, 9, 1)),
            (("high", "low"), (7, 0, 3)),
            (("high", "normal"), (7, 3, 0)),
            (("high",), (10, 0, 0)),
            (("normal",), (0, 10, 0)),
            (("low",), (0, 0, 10)),
        ],
    )
    def test_of_ten_tokens(
        self, waiting: tuple[str, ...], expected: tuple[int, ...], server: redis.Redis
    ) -> None:
        """Everybody comes again when he was told to, for ten seconds of a saturated limit."""
        given = self._run(limiter_on(server, 100), dict.fromkeys(waiting, 1000), seconds=10)

        total = sum(given.values())
        assert 980 <= total <= 1010
        for asker, share in zip(SHARES, expected, strict=True):
            assert given.get(asker, 0) == pytest.approx(total * share / 10, abs=15)

    def test_who_wants_little_gets_it_and_leaves_the_rest(self, server: redis.Redis) -> None:
        given = self._run(limiter_on(server, 100), {"high": 1, "low": 1000}, seconds=10, high=20)

        assert given["high"] >= 195
        assert sum(given.values()) >= 980

    def test_what_nobody_comes_for_any_more_goes_to_the_others(self, server: redis.Redis) -> None:
        limiter = limiter_on(server, 100)
        for number in range(20):
            limiter.ask(f"dies-{number}", "high", 1000, at=START + number * 1000)

        given = self._run(limiter, {"low": 1000}, seconds=3, begin=START + 20_000)
        assert given["low"] >= 260

    def _run(
        self,
        limiter: PacedLimiter,
        wanted: dict[str, int],
        *,
        seconds: int,
        high: int = 0,
        begin: int = START,
    ) -> dict[str, int]:
        """`high`: how often a second it asks for one token, whatever it is told."""
        due = dict.fromkeys(wanted, begin)
        given = dict.fromkeys(wanted, 0)
        number = 0
        asked = begin
        while (now := min(due.values())) < begin + seconds * SECOND:
            asker = min(due, key=lambda name: due[name])
            number += 1
            tokens, wait_ms = limiter.ask(f"{begin}-{number}", asker, wanted[asker], at=now)
            given[asker] += tokens
            if asker == "high" and high:
                asked += SECOND // high if tokens else 0
                due[asker] = max(now + 1000, asked) if tokens else now + wait_ms * 1000
            else:
                due[asker] = now + max(wait_ms, 1) * 1000
        return given


class TestWhatRedisForgets:
    def test_emptied_it_begins_with_none(self, server: redis.Redis) -> None:
        limiter = limiter_on(server, 100)
        limiter.ask("a", "high", 100, at=START)
        server.delete(*limiter.keys)

        assert limiter.ask("b", "high", 100, at=START + SECOND)[0] == 0
        assert limiter.ask("c", "high", 100, at=START + SECOND + 50_000)[0] == 5

    def test_a_clock_that_was_set_back_gives_nothing_for_a_while(self, server: redis.Redis) -> None:
        limiter = limiter_on(server, 100)
        now, given = START, 0
        for number in range(40):
            now += 50_000
            given += limiter.ask(f"a{number}", "high", 100, at=now)[0]
        back = now - 3600 * SECOND

        got = [
            limiter.ask(f"b{number}", "high", 100, at=back + number * 50_000)[0]
            for number in range(25)
        ]
        assert sum(got[:20]) <= 5  # what the window before had left
        assert sum(got) > 0  # an hour back is not an hour of silence

    def test_a_clock_that_jumps_ahead_gives_a_slice(self, server: redis.Redis) -> None:
        limiter = limiter_on(server, 100)
        limiter.ask("a", "high", 1, at=START)

        got = [
            limiter.ask(f"b{number}", "high", 100, at=START + 3600 * SECOND + number * 10_000)[0]
            for number in range(100)
        ]
        assert sum(got) <= 100

    def test_a_lost_answer_is_asked_for_again(self, server: redis.Redis) -> None:
        """The same request on a new connection: the tokens that it was given, and no more."""
        address = urlsplit(settings.REDIS_URL)
        limiter = limiter_on(server, 100)
        limiter.ask("begin", "high", 1, at=START)
        with proxy_to(address.hostname or "", address.port or 6379) as proxy:
            unsure = limiter_on(redis.Redis(port=proxy.port), 100, fresh=False)
            first = unsure.ask("same", "high", 8, at=START + SECOND)
            proxy.set(Fault.AWAY)
            with pytest.raises(redis.RedisError):
                unsure.ask("same", "high", 8, at=START + SECOND + 10)
        assert limiter.ask("same", "high", 8, at=START + SECOND + 20)[0] == first[0] == 8
        assert sum(count for _, count in log_of(server, limiter)) == 8


class TestWithoutRedis:
    def test_a_share_begins_empty_and_keeps_its_rate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        share = LocalShare()
        assert share.draw(10, per_second=50).tokens == 0

        given = []
        for _ in range(1000):
            now[0] += 0.01
            given.append(share.draw(10, per_second=50).tokens)
        assert 490 <= sum(given) <= 500
        now[0] += 60
        assert share.draw(100, per_second=50).tokens == 5
