"""Every metric of the notifications, one line of meaning each."""

from __future__ import annotations

from functools import cache, partial

from prometheus_client import Counter, Gauge, Histogram

# Of all processes the one that has measured last counts.
_gauge = partial(Gauge, multiprocess_mode="mostrecent")

ACCEPTED = Counter(
    "notifications_accepted_total",
    "Notifications stored, to be sent now or later.",
    ["channel", "priority"],
)
ATTEMPTS = Counter(
    "notification_attempts_total",
    "Attempts to send, by how they ended: delivered, failed, refused, held, unknown, late.",
    ["channel", "provider", "outcome"],
)
SEND_SECONDS = Histogram(
    "notification_send_seconds",
    "From the beginning of a call of a provider to its answer.",
    ["channel", "provider"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
DELIVERY_SECONDS = Histogram(
    "notification_delivery_seconds",
    "From accepted, or from its schedule, to delivered.",
    ["priority"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600, 3600),
)
LATE_SENDS = Counter(
    "notification_late_sends_total",
    "Reports of senders whose lease had ended: the provider may have been called twice, or after a "
    "cancel.",
)
EXPIRED = Counter("notifications_expired_total", "Notifications that failed because they expired.")
WAITING = _gauge(
    "notifications_waiting",
    "Notifications that wait, by reason: ready, paced, retry, held, breaker, paused, scheduled; "
    "counted up to 100,000.",
    ["channel", "priority", "reason"],
)
OLDEST_WAITING = _gauge(
    "notifications_oldest_waiting_seconds",
    "Age of the oldest of them since it could first have been sent.",
    ["channel", "priority", "reason"],
)
NOT_READY = _gauge(
    "notifications_not_ready",
    "Accepted notifications that no handler has made ready, counted up to 100,000.",
)
NOT_READY_AGE = _gauge("notifications_oldest_not_ready_seconds", "Age of the oldest of them.")
CHANNEL_PAUSED = _gauge(
    "notification_channel_paused",
    "1: somebody has paused the channel, and nothing of it is sent.",
    ["channel"],
)
BREAKER_STATE = _gauge(
    "notification_breaker_state", "0 closed, 1 half open, 2 open.", ["provider", "channel"]
)
BREAKER_OPENED = Counter(
    "notification_breaker_opened_total", "Times that a breaker opened.", ["provider", "channel"]
)
PACED_WITHOUT_REDIS = Gauge(
    "notifications_paced_without_redis",
    "Senders that use a share of the limit of their own, because Redis is unavailable.",
    multiprocess_mode="livesum",
)
SENDERS = _gauge("notification_senders", "Processes that send, as PostgreSQL knows them.")


_accepted = cache(ACCEPTED.labels)  # a look by label costs more than to count


def count_accepted(channel: str, priority: str, count: int) -> None:
    """These were stored."""
    _accepted(channel, priority).inc(count)
