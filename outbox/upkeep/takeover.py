"""How long the partitions of a dead bridge wait for another, and what a broker says to that."""

from __future__ import annotations

from collections.abc import Iterator

from outbox import conf
from outbox.kafka import groups
from outbox.kafka.consumer import MAX_POLL_MS

__all__ = ["LONG_MS", "shorten", "slow_takeovers"]

LONG_MS = groups.SESSION_MS


def shorten() -> str:
    """Make it as short as the broker allows; what was reached, in words, empty where the client
    decides (classic protocol). Raises KafkaUnavailable."""
    found = groups.shorten_sessions(_groups())
    if not found:
        return ""
    return f"A bridge that dies is replaced after {_seconds(max(found.values()))}."


def slow_takeovers() -> Iterator[tuple[str, str]]:
    """What was found, and what it means with the settings to change; nothing where all is well.
    Raises KafkaUnavailable."""
    found = groups.sessions(_groups())
    longest = max(found.values(), default=0)
    if longest <= LONG_MS:
        return
    limits = groups.broker_limits()
    means = (
        f"When a bridge dies, its partitions wait {_seconds(longest)} for another; when one stands "
        f"still, so much longer than {_seconds(MAX_POLL_MS)} (max.poll.interval.ms). "
    )
    if limits and groups.wanted(limits)[0] < longest:
        advice = "Run manage.py prepare, which sets less for our groups."
    else:
        reason = "allows no less for a group" if limits else "does not say more"
        advice = (
            f"The broker {reason}: set group.consumer.min.session.timeout.ms = "
            f"{groups.SESSION_MS} and group.consumer.min.heartbeat.interval.ms = "
            f"{groups.HEARTBEAT_MS} there and run manage.py prepare; or set "
            f"group.consumer.session.timeout.ms = {groups.SESSION_MS} for all groups."
        )
    yield f"consumer.session.timeout.ms of our groups = {longest}", means + advice


def _groups() -> list[str]:
    return [route.handler for route in conf.routes()]


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.0f} s"
