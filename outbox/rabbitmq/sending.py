"""What is on its way to Kafka, and the messages that Kafka refuses.

A refusal takes down the whole request and ends the stream. What shared the request is then sent alone
before anything else; so all but the culprit keep their places. Everything else that fails is Kafka's
trouble and waits."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from outbox.envelope import rfc3339
from outbox.kafka.stream import Failure, Header, Stream
from outbox.rabbitmq import metrics
from outbox.rabbitmq.deliveries import Delivery
from outbox.rabbitmq.message import Headers
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.watch import Watch

__all__ = ["Sending", "Sent"]

# What was on its way when a stream ended may still be answered.
_LAST_REPORTS = 1.0  # seconds

log = structlog.get_logger("outbox.relay")


@dataclass(slots=True)
class Sent:
    """What became of messages since the last step.

    refused   for good, with Kafka's reason
    dropped   neither sent nor to be sent: their channel is gone, they come again
    """

    delivered: list[Delivery] = field(default_factory=list)
    refused: list[tuple[Delivery, str]] = field(default_factory=list)
    dropped: list[Delivery] = field(default_factory=list)


class _Pause:
    """Between tries: doubles up to a bound, with jitter."""

    def __init__(self, policy: RelayPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self.until = 0.0

    def failed(self, now: float) -> None:
        self.until = now + pause_after(self._failures, self._policy)
        self._failures += 1

    def succeeded(self) -> None:
        self._failures, self.until = 0, 0.0


def pause_after(failures: int, policy: RelayPolicy) -> float:
    """Seconds after so many failures before this one."""
    longest = min(policy.retry_initial * 2 ** min(failures, 30), policy.retry_max)
    return float(longest * random.uniform(0.5, 1.0))  # noqa: S311


class Sending:
    """`add` what is claimed, in the order of the queue; `step` sends it and returns the outcome."""

    def __init__(self, policy: RelayPolicy, watch: Watch) -> None:
        self._policy = policy
        self._watch = watch
        self._headers = Headers(policy.queue)
        self._ready: deque[Delivery] = deque()
        self._stream: Stream[Delivery] | None = None
        self._failed: list[Failure[Delivery]] = []
        self._ends_at: float | None = None  # of the stream, after something failed
        self._pause = _Pause(policy)
        self._lone = _Lone(policy, watch, self._headers)
        self.replaced = 0  # streams
        self._error = ""  # of the last message that failed, until one arrives

    @property
    def on_its_way(self) -> int:
        """Messages that Kafka's client has."""
        return len(self._stream or ()) + self._lone.on_its_way

    @property
    def is_waiting(self) -> bool:
        """Whether anything is to be done here that no report will announce."""
        return (
            bool(self._ready or self._failed or self._lone.is_waiting) or self._ends_at is not None
        )

    @property
    def trouble(self) -> str:
        """Why Kafka takes nothing, while something waits for it; else empty. What Kafka turns away at
        once, as from a writer without permission, waits for no report."""
        return (self._error or self._lone.error) if self.is_waiting or self.on_its_way else ""

    def waited(self, now: float) -> float:
        """Seconds that the oldest message has waited for its report."""
        main = self._stream.waited(now) if self._stream is not None else 0.0
        return max(main, self._lone.waited(now))

    def prepare(self, now: float) -> None:
        """Have a producer before there is a message, which would wait for the producer's own
        identification."""
        if self._stream is None and now >= self._pause.until:
            self._stream = self._new_stream()

    def add(self, deliveries: Iterable[Delivery]) -> None:
        self._ready.extend(deliveries)

    def forget_unsent(self) -> list[Delivery]:
        """Give up what Kafka's client has not been given; returns it."""
        unsent = [*self._ready, *self._lone.forget_unsent()]
        self._ready.clear()
        return unsent

    def step(self, now: float) -> Sent:
        """Send what can be sent and fetch the reports; never waits for Kafka."""
        sent = Sent()
        self._lone.step(now, sent)
        if self._ends_at is None and not self._lone.has_suspects and now >= self._pause.until:
            self._send(sent)
        if self._stream is not None:
            delivered, failed = self._stream.poll()
            if delivered:
                sent.delivered += delivered
                self._pause.succeeded()
            self._failed += failed
            if self._ends_at is None and (failed or self._stream.fatal):
                self._ends_at = now + _LAST_REPORTS
            if self._ends_at is not None and (not len(self._stream) or now >= self._ends_at):
                self._end_stream(now, sent)
        if sent.delivered:
            self._error = self._lone.error = ""
        for delivery in sent.delivered:
            delivery.produced = False
        return sent

    def close(self) -> None:
        for stream in (self._stream, self._lone.stream):
            if stream is not None:
                stream.end()

    def _new_stream(self) -> Stream[Delivery]:
        return Stream(self._policy.topic, limit=self._watch.limit)

    def _send(self, sent: Sent) -> None:
        if not self._ready:
            return
        if self._stream is None:
            self._stream = self._new_stream()
        time_ = _now()
        while self._ready:
            delivery = self._ready.popleft()
            if delivery.tag is None:
                sent.dropped.append(delivery)
                continue
            if not _is_taken(delivery, self._stream, self._headers.of(delivery, time_)):
                self._ready.appendleft(delivery)
                return

    def _end_stream(self, now: float, sent: Sent) -> None:
        """Replace the stream, and sort what it did not deliver."""
        assert self._stream is not None
        stream, self._stream, self._ends_at = self._stream, None, None
        self.replaced += 1
        delivered, failed = stream.end()
        sent.delivered += delivered
        failed, self._failed = [*self._failed, *failed], []
        in_doubt = sum(each.in_doubt for each in failed)
        metrics.IN_DOUBT.inc(in_doubt)
        refused = any(each.refused for each in failed)
        if not refused:
            self._error = stream.fatal or next((each.error for each in failed), "no answer")
            self._pause.failed(now)
        log.warning(
            "kafka_stream_replaced",
            error=stream.fatal or next((each.error for each in failed), ""),
            failed=len(failed),
            in_doubt=in_doubt,
            refused=sum(each.refused for each in failed),
        )
        again = []
        for each in sorted(failed, key=lambda each: each.token.number):
            delivery = each.token
            delivery.produced = False
            if delivery.tag is None:
                sent.dropped.append(delivery)
            elif each.refused:
                self._lone.suspect(delivery)
            else:
                again.append(delivery)
        self._ready.extendleft(reversed(again))


class _Lone:
    """Sends one message at a time: those that shared a refused request, and those refused alone."""

    def __init__(self, policy: RelayPolicy, watch: Watch, headers: Headers) -> None:
        self._policy = policy
        self._watch = watch
        self._headers = headers
        self.stream: Stream[Delivery] | None = None
        self._suspects: deque[Delivery] = deque()
        self._refused: list[tuple[float, int, Delivery]] = []  # a heap by when they are due
        self._under_way: Delivery | None = None
        self._pause = _Pause(policy)
        self.error = ""  # the same of what is sent alone

    @property
    def on_its_way(self) -> int:
        return len(self.stream or ())

    @property
    def has_suspects(self) -> bool:
        """Until these are through nothing else may be sent: their neighbours must not overtake."""
        return bool(self._suspects) or (
            self._under_way is not None and self._under_way.attempts == 0
        )

    @property
    def is_waiting(self) -> bool:
        return bool(self._suspects or self._refused)

    def suspect(self, delivery: Delivery) -> None:
        self._suspects.append(delivery)

    def waited(self, now: float) -> float:
        return self.stream.waited(now) if self.stream is not None else 0.0

    def forget_unsent(self) -> list[Delivery]:
        unsent = [*self._suspects, *(each[2] for each in self._refused)]
        self._suspects.clear()
        self._refused.clear()
        return unsent

    def step(self, now: float, sent: Sent) -> None:
        if self.stream is not None:
            delivered, failed = self.stream.poll()
            self._take_reports(delivered, failed, now, sent)
            if self.stream.fatal:
                self.error = self.stream.fatal
                self._take_reports(*self.stream.end(), now, sent)
                self.stream = None
                self._pause.failed(now)
        if self._under_way is None and now >= self._pause.until:
            self._send_next(now, sent)

    def _take_reports(
        self,
        delivered: Iterable[Delivery],
        failed: Iterable[Failure[Delivery]],
        now: float,
        sent: Sent,
    ) -> None:
        for delivery in delivered:
            self._under_way = None
            self._pause.succeeded()
            sent.delivered.append(delivery)
        for failure in failed:
            delivery = failure.token
            self._under_way = None
            delivery.produced = False
            if not failure.refused:
                metrics.IN_DOUBT.inc(failure.in_doubt)
                self._pause.failed(now)
                self.error = failure.error
                self._suspects.appendleft(delivery)
                continue
            delivery.attempts += 1
            log.error(
                "message_refused",
                event_id=delivery.event_id,
                topic=self._policy.topic,
                error=failure.error,
                attempts=delivery.attempts,
            )
            if delivery.attempts >= self._policy.max_retries:
                sent.refused.append((delivery, failure.error))
            else:
                due = now + pause_after(delivery.attempts - 1, self._policy)
                heapq.heappush(self._refused, (due, delivery.number, delivery))

    def _send_next(self, now: float, sent: Sent) -> None:
        while delivery := self._next(now):
            if delivery.tag is None:
                sent.dropped.append(delivery)
                continue
            if self.stream is None:
                self.stream = Stream(self._policy.topic, limit=self._watch.limit, gapless=False)
            if _is_taken(delivery, self.stream, self._headers.of(delivery, _now())):
                metrics.RETRIES.inc()
                self._under_way = delivery
            else:
                self._suspects.appendleft(delivery)
            return

    def _next(self, now: float) -> Delivery | None:
        if self._suspects:
            return self._suspects.popleft()
        if self._refused and self._refused[0][0] <= now:
            return heapq.heappop(self._refused)[2]
        return None


def _is_taken(delivery: Delivery, stream: Stream[Delivery], headers: Sequence[Header]) -> bool:
    """Give it to Kafka's client, which may have no room."""
    body = delivery.body
    assert body is not None
    delivery.produced = stream.send(
        delivery, key=body.event_id, value=bytes(body.payload), headers=headers
    )
    return delivery.produced


def _now() -> str:
    return rfc3339(datetime.now(UTC))
