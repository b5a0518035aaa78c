"""Whether Kafka is well, by what is under way and what the watch received; the breaker's outcomes."""

from __future__ import annotations

import structlog

from outbox.breaker import machine
from outbox.rabbitmq.breaker import Breaker
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.sending import Sending
from outbox.rabbitmq.watch import Watch

__all__ = ["KafkaHealth"]

log = structlog.get_logger("outbox.relay")


class KafkaHealth:
    """Looks once a second. A look is a failure when something sent has waited too long, or a
    question was not answered; it is a success when something arrived, or a question was answered.

    is_well     nothing waits too long or was turned away, and the last answer was a good one
    wants_more  whether to consume: the breaker is closed, and Kafka has answered once
    """

    def __init__(self, policy: RelayPolicy, watch: Watch, sending: Sending) -> None:
        self._policy = policy
        self._watch = watch
        self._sending = sending
        self.breaker = Breaker(
            requests=policy.breaker_requests,
            share=policy.breaker_share,
            seconds=policy.breaker_open,
        )
        self._answers = 0
        self.delivered = 0  # acknowledged by Kafka since the last look
        self.is_well = False
        self.wants_more = False
        self._has_answered = False

    def look(self, now: float) -> None:
        """Once a second."""
        outcome = self._outcome(now)
        before = self.breaker.state(now)
        after = before if outcome is None else self.breaker.note(success=outcome, now=now)
        if after != before:
            log.warning("breaker", state=after.replace(" ", "_"), error=self._sending.trouble)
        if self._watch.is_well:
            self._has_answered = True
        is_taken = not self._waits_too_long(now) and not self._sending.trouble
        self.is_well = bool(self._watch.is_well) and is_taken
        self.wants_more = after == machine.CLOSED and self._has_answered
        if not self.is_well or after != machine.CLOSED:
            self._watch.ask()

    def _outcome(self, now: float) -> bool | None:
        """None: this look says nothing."""
        delivered, self.delivered = self.delivered, 0
        answers, self._answers = self._watch.answers - self._answers, self._watch.answers
        if self._waits_too_long(now):
            return False
        if delivered:
            return True
        return self._watch.is_well if answers else None

    def _waits_too_long(self, now: float) -> bool:
        return self._sending.waited(now) > self._policy.waits_too_long
