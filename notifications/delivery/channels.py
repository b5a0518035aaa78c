"""Stopping and starting a channel while everything runs. A pause is a row: no claim takes what is of a
paused channel; what was claimed before is sent to its end."""

from __future__ import annotations

from functools import partial
from uuid import UUID

import structlog
from django.db import connection, transaction

from notifications.delivery.turns import nudge
from notifications.models import Channel, ChannelControl, Priority
from outbox import operator_log
from outbox.database.ask import row_of
from outbox.database.planner import limit_lock_waits
from outbox.database.round_trips import Statement

__all__ = [
    "KEEP_OUT_PAUSES",
    "NOT_PAUSED",
    "UnknownChannel",
    "channel_statuses",
    "pause_channel",
    "resume_channel",
]

CLAIM_WAIT = 6.0  # seconds; longer than a claim may take
_LOCK = 0x6E63_6861  # any constant: claims share it, whoever pauses or resumes has it alone

# Of a statement that names channels as `wanted`.
NOT_PAUSED = """
    NOT EXISTS (SELECT 1 FROM notification_channels AS control
                WHERE control.channel = wanted.channel AND control.paused)
"""
# Before a claim, in its transaction.
KEEP_OUT_PAUSES: Statement = (f"SELECT pg_advisory_xact_lock_shared({_LOCK})", ())
_WRITE = """
    INSERT INTO notification_channels AS control (channel, paused, reason, changed_by)
    VALUES (%s, %s, %s, %s)
    ON CONFLICT (channel) DO UPDATE
    SET paused = excluded.paused, reason = excluded.reason, changed_by = excluded.changed_by,
        changed_at = clock_timestamp()
"""
# As many as there are calls: a few hundred at most.
_UNDER_WAY = """
    SELECT count(*) FROM notifications
    WHERE channel = %s AND priority = ANY(%s) AND status = 'processing'
      AND due_at > clock_timestamp()
"""

log = structlog.get_logger("notifications.delivery")


class UnknownChannel(LookupError):
    """There is no channel of this name."""


def channel_statuses() -> list[ChannelControl]:
    """One for each channel; one that was never touched has no row and runs."""
    rows = ChannelControl.objects.in_bulk()
    untouched = {"paused": False, "reason": "", "changed_by": "", "changed_at": None}
    return [
        rows.get(channel) or ChannelControl(channel=channel, **untouched)
        for channel in Channel.values
    ]


def pause_channel(channel: str, *, reason: str, by: str, once: UUID | None = None) -> int:
    """Once this returns nothing of the channel is claimed. Returns how many of it are being sent: what was
    claimed before goes to its end, which takes a claim's lease at most.

    It survives restarts. Raises UnknownChannel, OperationalError if claims take too long, and DoneAlready for
    a form that was sent before.
    """
    _change("pause", channel, reason=reason, by=by, once=once)
    [under_way] = row_of(_UNDER_WAY, (channel, Priority.values))
    log.warning("channel_paused", channel=channel, reason=reason, by=by, under_way=under_way)
    return int(under_way)


def resume_channel(channel: str, *, by: str, reason: str = "", once: UUID | None = None) -> None:
    """Have the channel served again, what waits at once. Raises as pause_channel."""
    _change("resume", channel, reason=reason, by=by, once=once)
    log.warning("channel_resumed", channel=channel, by=by)


def _change(what: str, channel: str, *, reason: str, by: str, once: UUID | None) -> None:
    if channel not in Channel.values:
        raise UnknownChannel(f"There is no channel {channel!r}: {', '.join(Channel.values)}.")
    pauses = what == "pause"
    with transaction.atomic(), connection.cursor() as cursor:
        limit_lock_waits(CLAIM_WAIT)
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        operator_log.note(what, f"channel {channel}", by=by, why=reason, once=once)
        cursor.execute(_WRITE, (channel, pauses, reason if pauses else "", by))
        if not pauses:
            for priority in Priority.values:
                transaction.on_commit(partial(nudge, priority), robust=True)
