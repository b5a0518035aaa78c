"""The upkeep of idempotency keys and status logs, and the alarms of the web process."""

from __future__ import annotations

from outbox.declaration import Every
from outbox.watching import Alarm
from restapi.declaration import App

__all__ = ["WIRING"]

WIRING = App(
    beat=(
        Every(60.0, "restapi.prune_idempotency_keys"),
        Every(60.0, "restapi.prune_status_logs"),
        Every(10.0, "restapi.measure_status_logs"),
    ),
    hops=("restapi.status_upkeep.hops",),
    alarms=(
        Alarm(
            name="StatusLogsNotPruned",
            figure='upkeep_last_done_seconds{job="prune_status_logs"}',
            bound=3600,
            seconds=300,
            absent=True,
            sentence="Last prune of the status logs: {value}. Their tables grow.",
        ),
        Alarm(
            name="StatusLogUnnumbered",
            figure="status_log_unnumbered_seconds",
            bound=30,
            seconds=60,
            critical=True,
            sentence="A committed change has waited {value} for its number: live feeds get no changes.",
        ),
        Alarm(
            name="StatusFeedUnread",
            figure="status_feed_unread_total",
            bound=5,
            rises=300,
            seconds=60,
            critical=True,
            sentence="Web processes could not read a status log {value} times in five minutes: its live feeds get no changes.",
        ),
        Alarm(
            name="WebSocketsFail",
            figure='websockets_closed_total{code="1011"}',
            bound=0,
            rises=300,
            critical=True,
            sentence="An error in this program closed {value} WebSockets in five minutes.",
        ),
        Alarm(
            name="RateLimitOpen",
            figure="rate_limit_failed_open_total",
            bound=0,
            rises=300,
            seconds=60,
            sentence="The rate limiter gets no answer from Redis in time: {value} requests were not limited in five minutes.",
        ),
    ),
)
