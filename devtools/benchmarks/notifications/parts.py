"""What is measured, part by part. Every part begins with empty tables."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from django.conf import settings

from devtools.benchmarks.backbone.stage import Stage
from devtools.benchmarks.cpu import an_item, seconds_of_stack
from devtools.benchmarks.notifications import rows
from devtools.benchmarks.notifications.clock import SentAt, by_the_clock
from devtools.benchmarks.orders.client import Requests, full_speed
from devtools.benchmarks.report import BenchFigure
from devtools.provider.client import ProviderProcess
from devtools.provider.server import AnswerRule

__all__ = ["NotificationBench"]

SENDERS = ("worker-notifications-high", "worker-notifications-normal", "worker-notifications-low")
PIPELINE = ("worker-outbox", "bridge", "beat", *SENDERS)
ONE = json.dumps({"recipient": "+15550001111", "channel": "sms", "content": "x" * 100})
ARRIVES_SECONDS = 20.0  # that is waited for the last notification
SEED = 20_261_130  # of the answers that are refused at random


@dataclass(frozen=True, slots=True)
class NotificationBench:
    """The stack, the provider, its log, and how long a part lasts."""

    stage: Stage
    provider: ProviderProcess
    log: Path
    seconds: float

    @property
    def url(self) -> str:
        return f"{self.stage.stack.base_url}/api/v1/notifications"

    # -- accepting

    def accept(self) -> Iterator[BenchFigure]:
        """The web process alone."""
        self._begin("web")
        wanted = Requests(method="POST", path="/api/v1/notifications", body=ONE)
        sample = full_speed(
            self.stage.stack.base_url, wanted, connections=32, seconds=min(self.seconds, 10.0)
        )
        note = f"p50 {sample.p50:.1f} ms, {sample.errors} errors"
        yield BenchFigure(name="POST at 32, web alone", value=sample.rate, unit="/s", at_least=7000)
        yield BenchFigure(name="its p99", value=sample.p99, unit="ms", at_most=12, note=note)
        self._begin("web", *PIPELINE)
        sample = full_speed(
            self.stage.stack.base_url, wanted, connections=32, seconds=min(self.seconds, 10.0)
        )
        name = "POST at 32, the whole pipeline behind it"
        yield BenchFigure(name=name, value=sample.rate, unit="/s", at_least=2500)

    def batch(self) -> Iterator[BenchFigure]:
        """A thousand in a body, one body after the other."""
        self._begin("web")
        entries = [
            {"recipient": f"+1555{number:07}", "channel": "sms", "content": "x" * 100}
            for number in range(1000)
        ]
        body = json.dumps({"notifications": entries})
        wanted = Requests(method="POST", path="/api/v1/notifications/batch", body=body)
        sample = full_speed(
            self.stage.stack.base_url, wanted, connections=1, seconds=min(self.seconds, 10.0)
        )
        rate = sample.rate * 1000
        yield BenchFigure(
            name="batches of 1,000", value=rate, unit="notifications/s", at_least=12_000
        )
        yield BenchFigure(name="one batch, p50", value=sample.p50, unit="ms", at_most=150)

    # -- delivering

    def deliver(self) -> Iterator[BenchFigure]:
        """Rows laid ready; the provider answers at once, then refuses one in ten, then hangs for a
        channel."""
        plain, spent = self._rate()
        yield BenchFigure(
            name="delivery, no limit", value=plain, unit="/s", at_least=2700, note=spent
        )
        self.provider.rules(AnswerRule(share=0.1, seed=SEED, status=503))
        failing, _ = self._rate()
        share = 100 * failing / plain
        yield BenchFigure(
            name="the same, 10 % answered 503", value=share, unit="% of it", at_least=80
        )
        self.provider.rules(AnswerRule(path="/sms", do="hang"))
        hanging, _ = self._rate(without="sms")
        share = 100 * hanging / (plain * 2 / 3)
        yield BenchFigure(
            name="the others while one channel's provider hangs",
            value=share,
            unit="% of theirs",
            at_least=90,
        )
        self.provider.rules()

    def _rate(self, *, without: str = "") -> tuple[float, str]:
        """Notifications delivered a second by all senders, of more than they can send; and what each
        has cost whom."""
        stack, provider = self.stage.stack, self.provider.child.pid
        self._begin("beat", *PIPELINE)
        rows.lay_ready(round(5000 * self.seconds), priorities=("high", "normal", "low"))
        begin = time.monotonic()
        cpu, before = seconds_of_stack(stack, provider=provider), rows.delivered()
        time.sleep(self.seconds)
        done = rows.delivered() - before
        spent = time.monotonic() - begin
        note = an_item(cpu, seconds_of_stack(stack, provider=provider), done)
        if without:
            paths = {each.path for each in rows.read_log(self.log, since=begin)}
            assert f"/{without}" in paths
        self.stage.stop(*SENDERS)
        return done / spent, note

    def latency(self) -> Iterator[BenchFigure]:
        """50 a second by the clock, from the request to the provider."""
        self._begin("web", *PIPELINE)
        sent = by_the_clock(self.url, rate=50, seconds=min(self.seconds, 30.0), priority="high")
        p50, p99 = self._until_provider(sent)
        for name, value, share, at_most in (("p50", p50, 0.5, 80), ("p99", p99, 0.99, 250)):
            kafka, ready, begun = rows.steps(share)
            yield BenchFigure(
                name=f"create → provider at 50/s, {name}",
                value=value,
                unit="ms",
                at_most=at_most,
                note=f"commit → Kafka {kafka:.0f} ms, → ready {ready:.0f} ms, → attempt {begun:.0f} ms",
            )

    def schedule(self) -> Iterator[BenchFigure]:
        """A thousand, then ten thousand for the same moment."""
        for count in (1000, 10_000):
            self._begin("beat", *PIPELINE)
            rows.lay_scheduled(count, seconds=5.0)
            give_up = time.monotonic() + 5.0 + ARRIVES_SECONDS
            pending, p50, last, ready = 0, 0.0, 0.0, 0.0
            while pending < count and time.monotonic() < give_up:
                time.sleep(0.5)
                pending, (p50, last, ready) = rows.pending_after()
            yield BenchFigure(
                name=f"{count:,} scheduled for one moment: the last is pending",
                value=last if pending == count else ARRIVES_SECONDS * 1000,
                unit="ms",
                at_most=1000,
                note=f"p50 {p50:.0f} ms; {pending:,} pending, the last so far ready after {ready:.0f} ms",
            )

    # -- pacing: on a stack with a limit

    def pace(self) -> Iterator[BenchFigure]:
        """100 a second and channel, three channels."""
        self._begin("beat", *PIPELINE)
        limit = settings.RATE_LIMIT_PER_CHANNEL
        rows.lay_ready(round(limit * 3 * (self.seconds + 10)))
        begin = time.monotonic() + 3.0
        most = self._limiters_busiest_second(self.seconds + 3.0)
        arrived = [
            each for each in rows.read_log(self.log, since=begin) if each.at < begin + self.seconds
        ]
        rate = len(arrived) / self.seconds
        off = abs(rate - 3 * limit) / (3 * limit) * 100
        yield BenchFigure(
            name="limit 100/s, three channels", value=off, unit="% off 300/s", at_most=1
        )
        yield BenchFigure(
            name="by the limiter's log, in a second", value=most, unit="", at_most=limit
        )
        busiest = max(
            rows.busiest_second([each.at for each in arrived if each.path == f"/{channel}"])
            for channel in rows.CHANNELS
        )
        yield BenchFigure(
            name="at the provider, in a second", value=busiest, unit="", at_most=limit * 1.05
        )

    def shares(self) -> Iterator[BenchFigure]:
        """20,000 of priority low wait for a channel; high ones come at 20 a second."""
        self._begin("web", *PIPELINE)
        rows.lay_ready(20_000, channels=("sms",), priorities=("low",))
        time.sleep(2.0)
        sent = by_the_clock(self.url, rate=20, seconds=min(self.seconds, 30.0), priority="high")
        p50, p99 = self._until_provider(sent)
        note = f"p50 {p50:.0f} ms"
        name = "high behind 20,000 low, p99"
        yield BenchFigure(name=name, value=p99, unit="ms", at_most=500, note=note)

    # -- steps

    def _begin(self, *names: str) -> None:
        """Empty tables, and exactly these processes."""
        self.stage.only()
        rows.clear()
        with redis.Redis.from_url(self.stage.stack.env["REDIS_URL"]) as server:
            server.flushall()
        self.stage.start(*dict.fromkeys(names))

    def _until_provider(self, sent: list[SentAt]) -> tuple[float, float]:
        """Milliseconds from the intended start to the arrival, p50 and p99. What has not arrived when
        the time is over counts as arriving then."""
        give_up = time.monotonic() + ARRIVES_SECONDS
        arrived: dict[str, float] = {}
        while any(each.id not in arrived for each in sent) and time.monotonic() < give_up:
            time.sleep(0.2)
            arrived = {each.key: each.at for each in reversed(rows.read_log(self.log))}
        took = sorted((arrived.get(each.id, give_up) - each.at) * 1000 for each in sent)
        return took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)]

    def _limiters_busiest_second(self, seconds: float) -> float:
        """Over all channels, of what the limiter noted itself; it keeps ten seconds."""
        noted: dict[str, dict[bytes, tuple[float, int]]] = {each: {} for each in rows.CHANNELS}
        give_up = time.monotonic() + seconds
        with redis.Redis.from_url(self.stage.stack.env["REDIS_URL"]) as server:
            while time.monotonic() < give_up:
                for channel, found in noted.items():
                    found.update(_noted(server, channel))
                time.sleep(1.0)
        busiest = 0
        for found in noted.values():
            times = [at for at, count in sorted(found.values()) for _ in range(count)]
            busiest = max(busiest, rows.busiest_second(times))
        return busiest


def _noted(server: redis.Redis, channel: str) -> Iterator[tuple[bytes, tuple[float, int]]]:
    keys = f"pacing:{{{channel}}}:log", f"pacing:{{{channel}}}:given"
    counts: dict[bytes, bytes] = server.hgetall(keys[1])  # type: ignore[assignment]
    log: list[tuple[bytes, float]] = server.zrange(keys[0], 0, -1, withscores=True)  # type: ignore[assignment]
    for request, at in log:
        given, _, back = counts.get(request, b"0").partition(b":")
        yield request, (at / 1_000_000, int(given) - int(back or 0))
