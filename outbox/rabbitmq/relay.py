"""The loop: take > claim > send > mark > acknowledge, each for many messages at once, on one thread.
Nothing in it waits but for Redis, and for that at most `redis_wait`."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial
from statistics import fmean

import structlog
from pika import spec
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

from outbox.breaker import machine
from outbox.rabbitmq import metrics
from outbox.rabbitmq.canary import RelayCanary
from outbox.rabbitmq.claims import EventClaims, OwnerLease, connected
from outbox.rabbitmq.consuming import Consuming
from outbox.rabbitmq.dead_letters import DeadLetters
from outbox.rabbitmq.deliveries import Delivery, InHand
from outbox.rabbitmq.depths import Depths
from outbox.rabbitmq.events import Events
from outbox.rabbitmq.kafka_health import KafkaHealth
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.properties import Properties
from outbox.rabbitmq.sending import Sending
from outbox.rabbitmq.watch import Watch

__all__ = ["Relay"]

_TICK = 0.002  # seconds between two looks for reports
_SLOW_TICK = 0.02
_BREAKER = [machine.CLOSED, machine.HALF_OPEN, machine.OPEN]  # in the order of its metric
_SIZES = 1000  # bodies of which the mean size counts

log = structlog.get_logger("outbox.relay")


class Relay:
    """One process's relay of one queue. `run` returns after `request_stop`, from any thread."""

    def __init__(self, policy: RelayPolicy) -> None:
        self._policy = policy
        self._loop = IOLoop()
        owner = uuid.uuid4().hex
        self._claims = EventClaims(
            connected(policy.dedupe_url, wait=policy.redis_wait),
            owner,
            ttl=policy.dedupe_ttl,
            pause=policy.redis_pause,
        )
        self._lease = OwnerLease(
            connected(policy.dedupe_url, wait=policy.redis_wait),
            owner,
            seconds=policy.lease,
            every=policy.lease_every,
        )
        self._watch = watch = Watch(policy.topic)
        self._sending = Sending(policy, watch)
        self.kafka = KafkaHealth(policy, watch, self._sending)
        self._in_hand = InHand()
        self._letters = DeadLetters(policy, self._loop, on_confirmed=self._lettered)
        self._events = Events(
            policy,
            claims=self._claims,
            watch=watch,
            in_hand=self._in_hand,
            sending=self._sending,
            letters=self._letters,
        )
        self.consuming = Consuming(
            policy,
            self._loop,
            on_message=self._on_message,
            on_lost=self._events.lose_channel,
            prefetch=self._prefetch,
        )
        self._depths = Depths(policy, self.consuming)
        self._canary = RelayCanary(policy, self._loop)
        self._sizes: deque[int] = deque(maxlen=_SIZES)  # of the last bodies
        self._number = 0
        self._counted = 0  # of the deliveries, those that are counted in the metrics
        self._scheduled = False
        self._busy_again_at = 0.0
        self._lapse = -1.0
        self._held = False
        self._stop_at: float | None = None
        self._closing = False
        self.looks = 0

    # What the health of the process asks, from other threads

    @property
    def rabbitmq_is_well(self) -> bool:
        """Whether the relay consumes, or does not because Kafka is unavailable."""
        return self.consuming.is_consuming or (self.consuming.is_up and not self.kafka.wants_more)

    @property
    def dedupe_is_well(self) -> bool:
        """Whether Redis takes claims."""
        return not self._policy.dedupe or not self._claims.is_lost

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand that could be acknowledged."""
        return self.consuming.is_consuming and not len(self._in_hand)

    @property
    def delivered(self) -> int:
        return self._events.published

    @property
    def busy(self) -> int:
        """Messages in hand that another relay has claimed."""
        return len(self._events.busy)

    def call(self, action: Callable[[], object]) -> None:
        """Have the loop do this soon, from any thread."""
        self._loop.add_callback_threadsafe(action)

    def run(self) -> None:
        """Relay until a stop is asked for; what is under way then is seen through."""
        if self._policy.dedupe:
            self._lease.start()
        self._watch.start()
        self.consuming.open()
        self._look()
        try:
            self._loop.start()
        finally:
            self._sending.close()
            if self._policy.dedupe:
                self._lease.end()
            self._claims.close()
            self._loop.close()

    def request_stop(self) -> None:
        """Take no more, finish what Kafka's client has, give back the rest."""
        self.call(self._begin_stop)

    def _on_message(
        self, _: Channel, method: spec.Basic.Deliver, properties: Properties, body: bytes
    ) -> None:
        self._number += 1
        delivery = Delivery(
            self._number,
            method.delivery_tag,
            body,
            properties,
            exchange=method.exchange,
            routing_key=method.routing_key,
            arrived=time.monotonic(),
            redelivered=method.redelivered,
        )
        self._in_hand.add(delivery)
        self._sizes.append(len(body))
        if self._stop_at is None:
            self._events.fresh.append(delivery)
            self._wake()
            if self._in_hand.bytes > self._policy.in_hand_excess * self._policy.in_hand_bytes:
                self._take_fewer()

    def _take_fewer(self) -> None:
        """Bodies are so much larger than those before them that the rest of what RabbitMQ sends under
        the old prefetch has no room. It goes back with all in hand, whose mean counts from now on."""
        self._sizes = deque(self._in_hand.sizes(), maxlen=_SIZES)
        if len(self._in_hand) > self._prefetch():
            log.warning("too_large_in_hand", messages=len(self._in_hand), bytes=self._in_hand.bytes)
            self.consuming.give_back()
            self.consuming.take_again()

    def _prefetch(self) -> int:
        """Few until the size of the bodies is known."""
        wanted = self._policy.prefetch(fmean(self._sizes) if self._sizes else 0.0)
        first = self._policy.first_prefetch
        return wanted if len(self._sizes) >= first else min(wanted, first)

    def _lettered(self, delivery: Delivery) -> None:
        self._events.lettered(delivery)
        self._wake()

    def _wake(self, delay: float = 0.0) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(delay, self._step)

    def _step(self) -> None:
        self._scheduled = False
        self._work(time.monotonic())
        if self._events.fresh:
            self._wake()
        elif self._sending.on_its_way:
            self._wake(_TICK)
        elif self._sending.is_waiting or len(self._in_hand):
            self._wake(_SLOW_TICK)

    def _work(self, now: float) -> None:
        if self._stop_at is None:
            self._claim_again_after_lapse(now)
            self._events.take(now)
        sent = self._sending.step(now)
        now = time.monotonic()
        self._events.settle(sent, now)
        self.kafka.delivered += len(sent.delivered)
        self._canary.note(sent.delivered, now)
        self.consuming.ack(self._in_hand.due(settled_before=now - self._policy.single_ack_after))
        if self._stop_at is not None:
            self._go_on_stopping(now)

    def _claim_again_after_lapse(self, now: float) -> None:
        """This process stood still for longer than its lease: others may have sent what it had only
        claimed."""
        renewed = self._lease.renewed_at
        if self._policy.dedupe and now - renewed > self._policy.lease and renewed != self._lapse:
            self._lapse = renewed
            self._events.claim_unsent_again(now)

    def _look(self) -> None:
        """Once a second."""
        if self._closing:
            return
        now = time.monotonic()
        self.looks += 1
        self.kafka.look(now)
        if self._stop_at is None:
            if self.kafka.wants_more:
                self._sending.prepare(now)
            self._look_at_rabbitmq(now)
            self._canary.look(now)
        self._letters.look()
        self._depths.look(now)
        self._claims.look()
        self._events.release()
        self._tell(now)
        self._work(now)
        self._loop.call_later(self._policy.look_every, self._look)

    def _look_at_rabbitmq(self, now: float) -> None:
        oldest = self._in_hand.oldest()
        if oldest is not None and now - oldest >= self._policy.hold_seconds:
            # RabbitMQ would close the channel a little later, and all channels to come.
            log.warning("held_too_long", messages=len(self._in_hand), seconds=round(now - oldest))
            self._held = True
            self.consuming.give_back()
        elif self._held and self.kafka.wants_more and self.kafka.is_well:
            self._held = False
            self.consuming.take_again()
        self.consuming.want(self.kafka.wants_more)
        self.consuming.follow_prefetch()
        if self._events.busy and now >= self._busy_again_at:
            self._busy_again_at = now + self._policy.busy_every
            self._events.ask_busy(now)

    def _tell(self, now: float) -> None:
        self._counted, new = self._number, self._number - self._counted
        metrics.CONSUMED.inc(new)
        metrics.IN_FLIGHT.set(self._sending.on_its_way)
        metrics.BUSY.set(len(self._events.busy))
        metrics.LETTERS_WAITING.set(len(self._letters))
        metrics.CONSUMING.set(self.consuming.is_consuming)
        metrics.KAFKA_UP.set(self.kafka.is_well)
        metrics.BREAKER.set(_BREAKER.index(self.kafka.breaker.state(now)))
        oldest = self._in_hand.oldest()
        metrics.OLDEST.set(now - oldest if oldest is not None else 0.0)

    def _begin_stop(self) -> None:
        if self._stop_at is not None:
            return
        self._stop_at = time.monotonic() + self._policy.stop_seconds
        log.info("stopping", in_flight=self._sending.on_its_way, in_hand=len(self._in_hand))
        self.consuming.want(False)
        self._events.forget_unsent()
        self._wake()

    def _go_on_stopping(self, now: float) -> None:
        assert self._stop_at is not None
        done = not self._sending.on_its_way and not self._letters.on_its_way
        if self._closing:
            return
        if not done and now < self._stop_at:
            self._wake(_TICK)
            return
        self._closing = True
        self.consuming.ack(self._in_hand.due(settled_before=now))
        log.info("stopped", unfinished=self._sending.on_its_way, given_back=len(self._in_hand))
        links = (self.consuming, self._letters, self._canary)
        still_open = {link.name for link in links}

        def closed(name: str) -> None:
            still_open.discard(name)
            if not still_open:
                self._loop.stop()

        self._loop.call_later(self._policy.close_seconds, self._loop.stop)
        for link in links:
            link.close(partial(closed, link.name))
