"""How providers stand, for people: their breakers, and what they have asked for; and the reset by an operator."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec
from django.db import transaction

from notifications.delivery.breakers import Breakers
from notifications.delivery.rows import held
from notifications.models import Priority, ProviderHold
from notifications.providers.configured import breaker_name, configured, providers_of
from outbox import operator_log
from outbox.database.ask import changed_by, row_of
from outbox.database.planner import plan_by_index

__all__ = ["ProviderStatus", "UnknownProvider", "reset_breaker", "standings"]


RELEASED = 500  # rows of one statement, each in a transaction of its own

# Who holds a row is at work on it. What is held again, by an answer from after the reset, stays so.
_RELEASE = """
    WITH held AS MATERIALIZED (
        SELECT waiting.id FROM notifications AS waiting
        WHERE waiting.channel = %s AND waiting.priority = %s AND waiting.status = 'pending'
          AND waiting.due_at > clock_timestamp() AND waiting.waits_for = 'held'
          AND waiting.updated_at <= %s
          AND EXISTS (
              SELECT FROM notification_attempts AS last
              WHERE last.notification_id = waiting.id AND last.number = waiting.attempt
                AND last.provider = %s
          )
        ORDER BY waiting.due_at LIMIT %s FOR UPDATE SKIP LOCKED
    )
    UPDATE notifications AS changed
    SET due_at = clock_timestamp(), waits_for = '', updated_at = clock_timestamp()
    FROM held WHERE changed.id = held.id
"""


class UnknownProvider(LookupError):
    """No provider of this name serves the channel."""


class ProviderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A provider and a channel that it serves, in the order of the setting.

    breaker   closed, open or half open; `opens_in`: seconds until probes may go
    held_for  seconds that the provider still asks to wait
    """

    provider: str
    channel: str
    kind: str
    breaker: str
    opens_in: float
    held_for: float


def standings() -> list[ProviderStatus]:
    looks = Breakers().look()
    holds = held()
    return [
        ProviderStatus(
            provider=provider,
            channel=channel,
            kind=configured()[provider].kind,
            breaker=looks[breaker_name(provider, channel)].phase,
            opens_in=looks[breaker_name(provider, channel)].opens_in,
            held_for=holds.get((provider, channel), 0.0),
        )
        for provider, channel in providers_of()
    ]


def reset_breaker(
    provider: str, channel: str, *, who: str, reason: str, once: UUID | None = None
) -> bool:
    """Close a breaker and end a hold: what waits for it is due at once. Kept with who and why. False while
    Redis is lost: then no worker hears of it. Raises UnknownProvider, and DoneAlready for a form that was sent before."""
    if (provider, channel) not in providers_of():
        raise UnknownProvider(f"No provider {provider!r} serves the channel {channel!r}.")
    name = breaker_name(provider, channel)
    with transaction.atomic():
        # Before Redis is changed, which has no transaction.
        run = operator_log.begin("reset", f"breaker {name}", by=who, why=reason, asked=1, once=once)
        ProviderHold.objects.filter(provider=provider, channel=channel).delete()
        [moment] = row_of("SELECT clock_timestamp()")
        stored = Breakers().store.reset(name, who=who, reason=reason)
        operator_log.add(run, done=int(stored), skipped=int(not stored))
        operator_log.end(run, "" if stored else "Redis was unavailable: no worker got the reset")
    _release(provider, channel, held_until=moment)
    return stored


def _release(provider: str, channel: str, *, held_until: datetime) -> None:
    """Make due what this provider has asked to wait with, up to a moment of the database's clock."""
    for priority in Priority.values:
        found = RELEASED
        while found == RELEASED:
            with transaction.atomic():
                plan_by_index()
                found = changed_by(_RELEASE, (channel, priority, held_until, provider, RELEASED))
