"""How long a broker keeps the partitions of a member that is gone, for the groups of our handlers.

With `group.protocol=consumer` that is the broker's, 45 s unless a group has a setting of its own; with
the classic protocol the client asks for it. Only settings are asked for, never a group itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from confluent_kafka.admin import AdminClient, ResourceType  # type: ignore[attr-defined]
from django.conf import settings

from outbox.kafka import admin
from outbox.kafka.config import client_config

__all__ = [
    "HEARTBEAT_MS",
    "SESSION_MS",
    "broker_limits",
    "sessions",
    "shorten_sessions",
    "wanted",
]

SESSION_MS = 6000
HEARTBEAT_MS = 1500
HEARTBEATS = 3  # that a session has at least, so that one may be late
_SESSION = "consumer.session.timeout.ms"
_HEARTBEAT = "consumer.heartbeat.interval.ms"


def sessions(groups: Sequence[str]) -> dict[str, int]:
    """Group -> its session timeout in ms, of those that the broker shows; empty with the classic
    protocol. Raises KafkaUnavailable where it does not answer."""
    if settings.KAFKA_GROUP_PROTOCOL != "consumer":
        return {}
    client = AdminClient(client_config("admin"))
    client.list_topics(timeout=admin.TIMEOUT)  # away is another matter than unwilling
    found = {}
    for group, values in admin.described(client, ResourceType.GROUP, groups).items():
        with suppress(KeyError, ValueError):
            found[group] = int(values[_SESSION])
    return found


def broker_limits() -> tuple[int, int] | None:
    """The least session timeout and heartbeat interval that the broker allows a group, in ms; None where
    it does not show them. Raises KafkaUnavailable where it does not answer."""
    client = AdminClient(client_config("admin"))
    brokers = client.list_topics(timeout=admin.TIMEOUT).brokers
    described = admin.described(client, ResourceType.BROKER, [str(number) for number in brokers])
    try:
        session, heartbeat = (
            max(int(values[f"group.consumer.min.{name}.ms"]) for values in described.values())
            for name in ("session.timeout", "heartbeat.interval")
        )
        return session, heartbeat
    except (KeyError, ValueError):  # an older broker, or one that shows nothing
        return None


def wanted(least_session: int, least_heartbeat: int) -> tuple[int, int]:
    """The same as short as the broker allows and we want."""
    heartbeat = max(HEARTBEAT_MS, least_heartbeat)
    return max(SESSION_MS, least_session, HEARTBEATS * heartbeat), heartbeat


def shorten_sessions(groups: Sequence[str]) -> dict[str, int]:
    """Give each group whose session is longer than it need be one of its own; what they have then,
    as `sessions`. What the broker refuses stays as it is. Raises KafkaUnavailable."""
    before = sessions(groups)
    limits = broker_limits() if before else None
    if limits is None:
        return before
    session, heartbeat = wanted(*limits)
    longer = [group for group, found in before.items() if found > session]
    if not longer:
        return before
    values = {_SESSION: session, _HEARTBEAT: heartbeat}
    client = AdminClient(client_config("admin"))
    for future in admin.alter(client, ResourceType.GROUP, longer, values):
        with suppress(admin.KafkaUnavailable):
            admin.result_of(future)
    return sessions(groups)
