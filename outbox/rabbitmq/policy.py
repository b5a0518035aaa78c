"""Names, bounds and times of the relay, from Django's settings."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

__all__ = ["RelayPolicy", "configured"]

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayPolicy:
    """Seconds and bytes where nothing else is said; the names before the blank line are set by the
    environment (.env.example).

    hold_seconds < RabbitMQ's consumer_timeout (30 minutes), which would close the channel.
    stop_seconds + close_seconds < the ten seconds of a stop (guarantees.md#r19).
    """

    url: str = "amqp://guest:guest@localhost:5672/"
    queue: str = "events"
    topic: str = "processed_events"
    dedupe_url: str = "redis://localhost:6379/0"
    dedupe: bool = True
    dedupe_ttl: float = 24 * 3600.0
    create_always: bool = False  # a queue that was deleted later is created again
    workers: int = 10
    max_retries: int = 5  # times that a message is refused alone until it is a dead letter
    retry_initial: float = 0.1
    retry_max: float = 5.0
    breaker_requests: int = 5
    canary_every: float = 0.0  # after one that has come through; 0: none is sent

    breaker_share: float = 0.6
    breaker_open: float = 30.0
    waits_too_long: float = 5.0  # of something sent, until a look counts as a failure
    look_every: float = 1.0
    step_messages: int = 400
    in_hand_bytes: int = 64 * MEBIBYTE
    in_hand_excess: float = 1.5  # times as many bytes in hand go back at once
    first_prefetch: int = 64  # until the size of the bodies is known
    hold_seconds: float = 25 * 60.0
    busy_every: float = 1.0
    depths_every: float = 5.0  # between two looks at how much lies in RabbitMQ
    canary_pause: float = 600.0  # after one that has not come through
    redis_wait: float = 0.2
    redis_pause: float = 1.0  # without claims, after Redis did not answer
    lease: float = 10.0
    lease_every: float = 2.0
    single_ack_after: float = 0.1  # that a delivery behind an open one waits for company
    letter_again: float = 5.0  # after the dead-letter exchange has refused
    deliveries_at_most: int = 15
    stop_seconds: float = 7.5
    close_seconds: float = 1.0

    @property
    def exchange(self) -> str:
        return f"{self.queue}.dlx"

    @property
    def dead_letter_queue(self) -> str:
        return f"{self.queue}.dlq"

    def prefetch(self, mean_bytes: float) -> int:
        """How many deliveries may be in hand, by the mean size of the last bodies."""
        by_size = int(self.in_hand_bytes / max(mean_bytes, 1.0))
        return max(1, min(100 * self.workers, by_size, 65_535))


def configured() -> RelayPolicy:
    """What the settings say; RELAY is a dict of the fields."""
    return RelayPolicy(**settings.RELAY)
