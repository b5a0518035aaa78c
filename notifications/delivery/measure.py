"""Measures which notifications wait and for what, from PostgreSQL and the breakers: gauges, and hops for operators."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.db import transaction

from notifications import metrics
from notifications.delivery import deadlines
from notifications.delivery.breakers import STATES, Breakers
from notifications.delivery.channels import channel_statuses
from notifications.delivery.rows import SENDER_SECONDS, held
from notifications.models import Channel, ChannelControl, ChannelFigures, Priority
from notifications.providers.configured import breaker_name, in_order, providers_of
from outbox.breaker import machine
from outbox.breaker.store import BreakerLook
from outbox.database.ask import row_of, rows_of
from outbox.database.planner import plan_without
from outbox.watching import Hop

__all__ = ["REASONS", "hops", "measure_waiting"]

COUNTED = 100_000  # of each kind; every count ends here
COUNTED_FOR_A_PAGE = 2_000
PAUSED = "notification_channel_paused"
REASONS = ("ready", "paced", "retry", "held", "breaker", "paused", "scheduled")

# Groups by the reason that the row holds. For notifications that may be claimed now, Python finds the reason: the
# channel is paused, its breaker is open, a provider asked to wait, tokens are missing, or nothing delays them. Both
# parts read along the index notifications_due: a row with a reason has its due_at in the future.
_WAITING = """
    SELECT kind.channel, kind.priority, found.waits_for, count(*),
           extract(epoch FROM clock_timestamp() - min(found.ready_at))::float
    FROM (SELECT * FROM unnest(%s::text[]) AS channel (channel)
          CROSS JOIN unnest(%s::text[]) AS priority (priority)) AS kind
    CROSS JOIN LATERAL (
        (SELECT 'ready' AS waits_for, ready_at FROM notifications
         WHERE channel = kind.channel AND priority = kind.priority AND status = 'pending'
           AND due_at <= statement_timestamp()
         ORDER BY due_at LIMIT %s)
        UNION ALL
        (SELECT CASE WHEN waits_for = '' THEN 'ready' ELSE waits_for END, ready_at FROM notifications
         WHERE channel = kind.channel AND priority = kind.priority AND status = 'pending'
           AND due_at > statement_timestamp()
         ORDER BY due_at LIMIT %s)
    ) AS found
    GROUP BY 1, 2, 3
"""
_SCHEDULED = """
    SELECT channel, priority, count(*),
           extract(epoch FROM clock_timestamp() - min(scheduled_at))::float
    FROM (SELECT channel, priority, scheduled_at FROM notifications
          WHERE status = 'scheduled' ORDER BY scheduled_at LIMIT %s) AS kept
    GROUP BY channel, priority
"""
# Pending notifications that no handler has applied yet: their events are in the outbox, in Kafka or in a task.
_NOT_READY = """
    SELECT count(*), extract(epoch FROM clock_timestamp() - min(created_at))::float
    FROM (SELECT greatest(created_at, scheduled_at) AS created_at FROM notifications
          WHERE status = 'pending' AND ready_at IS NULL LIMIT %s) AS kept
"""
# The same among the newest and the oldest pending ones: cheap enough for the page, which asks every two seconds.
_NOT_READY_NEAR = """
    SELECT count(*), extract(epoch FROM clock_timestamp() - min(created_at))::float
    FROM (
        (SELECT greatest(created_at, scheduled_at) AS created_at, ready_at, id FROM notifications
         WHERE status BETWEEN 'pending' AND 'pending' AND status <> 'delivered'
         ORDER BY status, id LIMIT %s)
        UNION
        (SELECT greatest(created_at, scheduled_at), ready_at, id FROM notifications
         WHERE status BETWEEN 'pending' AND 'pending' AND status <> 'delivered'
         ORDER BY status DESC, id DESC LIMIT %s)
    ) AS near
    WHERE ready_at IS NULL
"""
# Their names are '<priority>@<host>:<pid>'.
_SENDERS = """
    SELECT split_part(name, '@', 1), count(*) FROM notification_senders
    WHERE seen_at > clock_timestamp() - make_interval(secs => %s::float) GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What waits. `looks`: by breaker name; `controls`: by channel; `not_ready` and each of `kinds`: number and
    age of the oldest."""

    looks: Mapping[str, BreakerLook]
    controls: Mapping[str, ChannelControl]
    senders: int
    not_ready: tuple[int, float]
    kinds: Mapping[tuple[str, str, str], tuple[int, float]]  # by channel, priority, reason


def measure_waiting(breakers: Breakers) -> None:
    """Set the gauges of all waiting notifications, to 0 if none wait."""
    now = _waiting(breakers, COUNTED)
    for provider, channel in providers_of():
        look = now.looks[breaker_name(provider, channel)]
        metrics.BREAKER_STATE.labels(provider, channel).set(STATES[look.phase])
        # Exported as 0, so that the first opening is an increase.
        metrics.BREAKER_OPENED.labels(provider, channel)
    metrics.SENDERS.set(now.senders)
    metrics.NOT_READY.set(now.not_ready[0])
    metrics.NOT_READY_AGE.set(now.not_ready[1])
    for channel in Channel.values:
        metrics.CHANNEL_PAUSED.labels(channel).set(now.controls[channel].paused)
        for priority in Priority.values:
            for reason in REASONS:
                count, oldest = now.kinds.get((channel, priority, reason), (0, 0.0))
                metrics.WAITING.labels(channel, priority, reason).set(count)
                metrics.OLDEST_WAITING.labels(channel, priority, reason).set(oldest)


def hops() -> Sequence[Hop]:
    """The hops: accepted notifications that are not ready, each channel, and each provider."""
    now = _waiting(Breakers(), COUNTED_FOR_A_PAGE)
    # The folded figures alone: while beat does not run, the rest may be large.
    figures = {each.channel: each for each in ChannelFigures.objects.all()}
    accepted = Hop(
        name="made ready",
        group="notifications",
        waits=min(now.not_ready[0], COUNTED_FOR_A_PAGE),
        counted=COUNTED_FOR_A_PAGE,
        oldest=now.not_ready[1],
        unit="notifications",
        figures={"notifications_oldest_not_ready_seconds": now.not_ready[1]},
        notes=("its rate is that of the handlers ready_high, ready_normal and ready_low",),
        page="/admin/notifications/notification/",
        times=deadlines.of_failed(),
    )
    channels = [
        _hop_of(channel, now, figures.get(channel) or ChannelFigures(delivered=0, failed=0))
        for channel in Channel.values
    ]
    return [accepted, *channels, *_hops_of_providers(now.looks)]


def _hop_of(channel: str, now: _Waiting, figures: ChannelFigures) -> Hop:
    by_reason: dict[str, tuple[int, float]] = dict.fromkeys(REASONS, (0, 0.0))
    for (of, _, reason), (count, oldest) in now.kinds.items():
        if of == channel:
            before = by_reason[reason]
            by_reason[reason] = (before[0] + count, max(before[1], oldest))
    by_reasons = [
        f"{count:,} {reason}, the oldest {oldest:.0f} s"
        for reason, (count, oldest) in by_reason.items()
        if count
    ]
    control = now.controls[channel]
    notes = [f"{figures.delivered:,} delivered, {figures.failed:,} failed"]
    if by_reasons:
        notes.append("; ".join(by_reasons))
    if control.paused:
        notes.append(f"paused by {control.changed_by}: {control.reason or 'no reason given'}")
    return Hop(
        name=channel,
        group="notifications",
        waits=sum(count for count, _ in by_reason.values()),
        counted=COUNTED_FOR_A_PAGE,
        # A scheduled notification does not count as waiting before its time.
        oldest=max(oldest for _, oldest in by_reason.values()),
        done=figures.delivered,
        unit="notifications",
        figures={
            f'notifications_oldest_waiting_seconds{{reason="{reason}"}}': oldest
            for reason, (_, oldest) in by_reason.items()
        }
        | {PAUSED: float(control.paused)},
        since={PAUSED: _age(control) if control.paused else 0.0},
        notes=tuple(notes),
        page="/admin/notifications/notification/",
        subject=channel,
        times=deadlines.of_paused(channel) if control.paused else (),
    )


def _age(control: ChannelControl) -> float:
    return (datetime.now(UTC) - control.changed_at).total_seconds()


def _hops_of_providers(looks: Mapping[str, BreakerLook]) -> list[Hop]:
    found = []
    for provider, channel in providers_of():
        look = looks[breaker_name(provider, channel)]
        opens = f", tried again in {look.opens_in:.0f} s" if look.opens_in > 0 else ""
        notes = () if look.phase == machine.CLOSED else (f"its breaker is {look.phase}{opens}",)
        found.append(
            Hop(
                name=f"provider {provider}, {channel}",
                group="notifications",
                unit="notifications",
                figures={"notification_breaker_state": float(STATES[look.phase])},
                notes=notes,
                page="/admin/notifications/providerhold/",
                subject=f"{provider}/{channel}",
            )
        )
    return found


def _waiting(breakers: Breakers, counted: int) -> _Waiting:
    """What waits now, counted up to `counted` of each kind."""
    looks = breakers.look()
    with transaction.atomic():
        # Reads along indexes; a sort would read every waiting row.
        plan_without("bitmapscan", "seqscan", "sort")
        return _read_waiting(looks, counted)


def _read_waiting(looks: Mapping[str, BreakerLook], counted: int) -> _Waiting:
    holds = held()
    senders: dict[str, int] = dict(rows_of(_SENDERS, (str(SENDER_SECONDS),)))
    if counted <= COUNTED_FOR_A_PAGE:
        not_ready, oldest_not_ready = row_of(_NOT_READY_NEAR, (counted, counted))
    else:
        not_ready, oldest_not_ready = row_of(_NOT_READY, (counted,))
    controls = {status.channel: status for status in channel_statuses()}
    blocked = {
        channel: "paused" if controls[channel].paused else _blocked(channel, looks, holds)
        for channel in Channel.values
    }
    found: dict[tuple[str, str, str], tuple[int, float]] = {}
    for channel, priority, said, count, oldest in _counts(counted):
        paced = _paced(count, senders=senders.get(priority, 0))
        reason = (blocked[channel] or paced) if said == "ready" else said
        before = found.get((channel, priority, reason), (0, 0.0))
        found[channel, priority, reason] = (before[0] + count, max(before[1], oldest or 0.0))
    return _Waiting(
        looks,
        controls,
        sum(senders.values()),
        (not_ready, max(0.0, oldest_not_ready or 0.0)),
        found,
    )


def _counts(counted: int) -> Iterator[tuple[str, str, str, int, float | None]]:
    yield from rows_of(_WAITING, (Channel.values, Priority.values, counted, counted))
    for channel, priority, count, oldest in rows_of(_SCHEDULED, (counted,)):
        yield channel, priority, "scheduled", count, oldest


def _blocked(
    channel: str, looks: Mapping[str, BreakerLook], holds: Container[tuple[str, str]]
) -> str:
    """Why a channel cannot be served: `breaker` or `held`; "" if it can be served."""
    for provider, _ in in_order(channel):
        look = looks[breaker_name(provider, channel)]
        if look.phase == machine.OPEN:
            continue
        return "held" if (provider, channel) in holds else ""
    return "breaker"


def _paced(count: int, *, senders: int) -> str:
    """`paced` if more wait than a second's tokens allow, otherwise `ready`. Without a sender nobody asks for
    tokens, so notifications wait for a sender and are `ready`."""
    return "paced" if senders and count > settings.RATE_LIMIT_PER_CHANNEL else "ready"
