"""What is known of the events in hand: claimed, sent, repeated, published, a dead letter."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from outbox.envelope import rfc3339
from outbox.rabbitmq import metrics
from outbox.rabbitmq.body import Unreadable
from outbox.rabbitmq.canary import is_canary
from outbox.rabbitmq.claims import ClaimOutcome, EventClaims
from outbox.rabbitmq.dead_letters import DeadLetters
from outbox.rabbitmq.deliveries import Delivery, InHand
from outbox.rabbitmq.message import (
    DELIVERY_COUNT,
    EncodingUnknown,
    Headers,
    traceparent_of,
    understand,
)
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.sending import Sending, Sent
from outbox.rabbitmq.watch import Watch
from outbox.tracing import PRODUCER, step

__all__ = ["Events"]

_REMEMBERED = 20_000  # published events, or as many as can be in hand at once

log = structlog.get_logger("outbox.relay")


class Events:
    """Takes deliveries, hands them to Kafka or to the dead letters, and settles them when one of the
    two has them.

    `fresh` are those that nobody has looked at; `busy` those that another relay has claimed.
    """

    def __init__(
        self,
        policy: RelayPolicy,
        *,
        claims: EventClaims,
        watch: Watch,
        in_hand: InHand,
        sending: Sending,
        letters: DeadLetters,
    ) -> None:
        self._policy = policy
        self._claims = claims
        self._watch = watch
        self._in_hand = in_hand
        self._sending = sending
        self._letters = letters
        self._headers = Headers(policy.queue)
        self.fresh: deque[Delivery] = deque()
        self.busy: list[Delivery] = []
        self.published = 0
        self._by_id: dict[str, Delivery] = {}
        # Id -> digest of the last events that were published here: their redeliveries are repetitions,
        # also without Redis.
        self._recent: OrderedDict[str, str] = OrderedDict()
        self._remembered = max(_REMEMBERED, policy.prefetch(0.0))
        self._to_release: set[str] = set()  # ids whose claims, if they are ours, are of no use

    def lose_channel(self) -> None:
        """The channel is gone. What Kafka's client has stays under way and waits for its redelivery;
        the rest is forgotten, because it comes again."""
        self._in_hand.lose()
        # A claim of this process keeps every other relay from sending it.
        self._to_release.update(id_ for id_, each in self._by_id.items() if not each.produced)
        self.forget_unsent()
        self._by_id = {id_: each for id_, each in self._by_id.items() if each.produced}
        self.release()
        for delivery in self._by_id.values():
            delivery.followers.clear()

    def forget_unsent(self) -> None:
        """Begin nothing more."""
        self.fresh.clear()
        self.busy.clear()
        self._sending.forget_unsent()

    def release(self) -> None:
        """Give up claims of what is not in hand any more; what Redis does not take now is tried
        again at the next look."""
        ids = sorted(self._to_release - self._by_id.keys())
        if not self._policy.dedupe or not ids or self._claims.release(ids):
            self._to_release.clear()

    def take(self, now: float) -> None:
        """Read what has come, claim it, and hand it on: one round."""
        if not self.fresh:
            return
        asked = []
        for _ in range(min(len(self.fresh), self._policy.step_messages)):
            delivery = self.fresh.popleft()
            try:
                body = understand(delivery)
            except Unreadable as error:
                kind = "encoding" if isinstance(error, EncodingUnknown) else "unreadable"
                self._to_letters(delivery, kind, str(error))
                continue
            if not self._is_known_here(delivery, body.event_id, now):
                self._by_id[body.event_id] = delivery
                asked.append(delivery)
        if not asked:
            return
        with step("relay.batch", PRODUCER) as begun:
            if begun.recorded:
                begun.record({"messaging.batch.message_count": len(asked)})
                begun.link(text for each in asked if (text := traceparent_of(each)))
            self._ask(asked, now)

    def _is_known_here(self, delivery: Delivery, event_id: str, now: float) -> bool:
        """Whether this process has the event in hand already, or has published it."""
        if (first := self._by_id.get(event_id)) is not None:
            if first.tag is None and first.digest == delivery.digest:
                self._in_hand.adopt(first, delivery)
            else:
                first.followers.append(delivery)
            return True
        # Its acknowledgement was lost with its channel. A message that was not delivered before may be
        # a replay, or a repetition that only Redis may judge.
        if delivery.redelivered and self._recent.get(event_id) == delivery.digest:
            self._duplicate(delivery, now)
            return True
        return False

    def _ask(self, deliveries: Sequence[Delivery], now: float) -> None:
        """Claim these, and do with each what the claim says."""
        outcomes = None
        if self._policy.dedupe:
            outcomes = self._claims.claim([(each.event_id, each.digest) for each in deliveries])
            if outcomes is None:
                metrics.DEDUPE_AWAY.inc(len(deliveries))
        mine = []
        time_ = rfc3339(datetime.now(UTC))
        for delivery, outcome in zip(
            deliveries, outcomes or [ClaimOutcome.MINE] * len(deliveries), strict=True
        ):
            if outcome is ClaimOutcome.MINE:
                if self._is_acceptable(delivery, time_):
                    mine.append(delivery)
            elif outcome is ClaimOutcome.BUSY:
                self.busy.append(delivery)
            elif outcome is ClaimOutcome.DUPLICATE:
                self._finished(delivery, now)
                self._duplicate(delivery, now)
            else:
                self._finished(delivery, now)
                self._reused(delivery)
        self._sending.add(mine)

    def _is_acceptable(self, delivery: Delivery, time_: str) -> bool:
        """Whether it may be tried; else it is on its way to the dead letters."""
        if not delivery.properties.is_plain:
            count = delivery.properties.number(DELIVERY_COUNT)
            if count >= self._policy.deliveries_at_most:
                self._to_letters(
                    delivery, "delivered_too_often", f"delivered {count} times before, never done"
                )
                return False
        if not self._headers.fits(delivery, self._watch.limit, time_):
            self._to_letters(
                delivery, "too_large", f"payload: too large for topic {self._policy.topic}"
            )
            return False
        return True

    def ask_busy(self, now: float) -> None:
        """Whether what another relay had claimed is done or free by now."""
        again, self.busy = self.busy, []
        self._ask(again, now)

    def claim_unsent_again(self, now: float) -> None:
        """What Kafka's client has not been given may be another relay's by now."""
        unsent = self._sending.forget_unsent()
        self._drop([each for each in unsent if each.tag is None], now)
        mine = [each for each in unsent if each.tag is not None]
        self._ask(sorted(mine, key=lambda each: each.number), now)

    def settle(self, sent: Sent, now: float) -> None:
        """Take over what became of messages that were sent."""
        for delivery, reason in sent.refused:
            if delivery.tag is not None:
                self._to_letters(delivery, "refused", f"Kafka refused it: {reason}")
        lost = [delivery for delivery, _ in sent.refused if delivery.tag is None]
        self._drop([*sent.dropped, *lost], now)
        self._published(sent.delivered, now)

    def _drop(self, deliveries: Sequence[Delivery], now: float) -> None:
        """Their channel is gone and nothing is under way: they start again when they come again. An
        event that stayed known would only be handed the new tag, and nobody would work on it."""
        for delivery in deliveries:
            self._finished(delivery, now)
            self._to_release.add(delivery.event_id)
        if deliveries:
            self.release()

    def _published(self, delivered: Sequence[Delivery], now: float) -> None:
        if not delivered:
            return
        meant = sum(not is_canary(each.event_id) for each in delivered)
        self.published += meant
        metrics.PUBLISHED.inc(meant)
        metrics.PROCESSING.observe(now - min(each.arrived for each in delivered))
        if self._policy.dedupe and not self._claims.mark_done(
            [(each.event_id, each.digest) for each in delivered]
        ):
            metrics.DEDUPE_AWAY.inc(len(delivered))
        for delivery in delivered:
            self._recent[delivery.event_id] = delivery.digest
            self._recent.move_to_end(delivery.event_id)
            self._in_hand.settle(delivery, now)
            self._finished(delivery, now, delivery.digest)
        while len(self._recent) > self._remembered:
            self._recent.popitem(last=False)

    def _finished(self, delivery: Delivery, now: float, digest: str | None = None) -> None:
        """The event is out of hand. What came behind it under the same id is a repetition; it begins
        anew if nothing was published, or if nobody is to look for repetitions."""
        if self._by_id.get(delivery.event_id) is delivery:
            del self._by_id[delivery.event_id]
        followers, delivery.followers = delivery.followers, []
        for follower in reversed(followers):
            if follower.tag is None:
                continue
            if digest is None or not self._policy.dedupe:
                self.fresh.appendleft(follower)
            elif follower.digest == digest:
                self._duplicate(follower, now)
            else:
                self._reused(follower)

    def _duplicate(self, delivery: Delivery, now: float) -> None:
        metrics.DUPLICATES.inc()
        self._in_hand.settle(delivery, now)

    def _reused(self, delivery: Delivery) -> None:
        self._to_letters(delivery, "reused", "event_id: was used with another payload before")

    def _to_letters(self, delivery: Delivery, kind: str, reason: str) -> None:
        log.warning(
            "dead_letter",
            kind=kind,
            event_id=delivery.event_id,
            reason=reason,
            queue=self._policy.queue,
        )
        self._letters.add(delivery, kind, reason)

    def lettered(self, delivery: Delivery) -> None:
        """RabbitMQ has confirmed the dead letter."""
        now = time.monotonic()
        if self._by_id.get(delivery.event_id) is delivery:
            self._finished(delivery, now)
            self._to_release.add(delivery.event_id)
            self.release()
        self._in_hand.settle(delivery, now)
