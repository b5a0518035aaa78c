"""Notifications that are asked for, or decided, and not yet written: their rows, and their JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from notifications.keys import BodyKey
from notifications.models import ATTEMPTS_ALLOWED, Status
from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.round_trips import Statement
from outbox.envelope import NO_TRACE, TraceContext, rfc3339

__all__ = ["Draft", "Errors", "NewNotification", "inserting", "inserting_batch"]

Errors = Mapping[str, Sequence[str]]

_encode = msgspec.json.Encoder().encode


class NewNotification(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A notification to accept, as its body says and with the defaults that are the same for all.

    content        without a template what is sent; with one, what is sent where a variable is missing
    unfit_content  what is wrong with a content that is given beside a template, and is not here
                   therefore: counts only if it would be sent
    expires_at     None: the default, from its creation or schedule on
    sees_all       whether its caller may use everybody's templates
    stale          field -> what is wrong with its times by now: counts only if its key is new
    """

    recipient: str
    channel: str
    priority: str = "normal"
    content: str | None = None
    unfit_content: str | None = None
    scheduled_at: datetime | None = None
    expires_at: datetime | None = None
    template_id: str | None = None
    variables: dict[str, str] | None = None
    key: BodyKey | None = None
    caller: str = "anonymous"
    sees_all: bool = False
    stale: Errors | None = None
    trace: TraceContext = NO_TRACE


class Draft(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A notification to write: what was asked for, and what was decided about it."""

    id: str
    batch_id: str | None
    new: NewNotification
    content: str
    is_rendered: bool
    template_name: str | None
    expires_at: datetime
    created_at: datetime

    @property
    def idempotency_key(self) -> str | None:
        return self.new.key.text if self.new.key else None

    @property
    def status(self) -> str:
        """Which it begins with."""
        return (Status.PENDING if self.new.scheduled_at is None else Status.SCHEDULED).value

    def words(self) -> bytes:
        """The JSON object that the contract shows."""
        new, created_at = self.new, rfc3339(self.created_at)
        return _encode(
            _Stored(
                id=self.id,
                batch_id=self.batch_id,
                idempotency_key=self.idempotency_key,
                recipient=new.recipient,
                channel=new.channel,
                content=self.content,
                priority=new.priority,
                status=self.status,
                scheduled_at=_moment(new.scheduled_at),
                expires_at=rfc3339(self.expires_at),
                max_retries=ATTEMPTS_ALLOWED[new.priority],
                template_id=new.template_id,
                template_variables=new.variables,
                rendered=self.is_rendered,
                created_at=created_at,
                updated_at=created_at,
            )
        )


class _Stored(msgspec.Struct, kw_only=True, gc=False):
    """Its fields, in the order of the contract; queries.WORDS says the same of a row."""

    id: str
    batch_id: str | None
    idempotency_key: str | None
    recipient: str
    channel: str
    content: str
    priority: str
    status: str
    provider_message_id: None = None
    scheduled_at: str | None
    expires_at: str
    sent_at: None = None
    failed_at: None = None
    retry_count: int = 0
    max_retries: int
    error_message: None = None
    template_id: str | None
    template_variables: dict[str, str] | None
    rendered: bool
    created_at: str
    updated_at: str


def _moment(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def inserting(drafts: Sequence[Draft]) -> list[Statement]:
    """What writes their rows and those of their keys."""
    statements: list[Statement] = [(INSERT_NOTIFICATIONS, _columns(drafts))]
    keyed = [(draft.new.key, draft.id) for draft in drafts if draft.new.key is not None]
    if keyed:
        columns = (
            array_literal([key.id for key, _ in keyed]),
            array_literal([key.fingerprint for key, _ in keyed]),
            array_literal([id_ for _, id_ in keyed]),
        )
        statements.append((KEEP_KEYS, columns))
    return statements


def _columns(drafts: Sequence[Draft]) -> tuple[str, ...]:
    return (
        array_literal([each.id for each in drafts]),
        *map(
            text_array_literal,
            (
                [each.new.caller for each in drafts],
                [each.batch_id or "" for each in drafts],
                [each.new.recipient for each in drafts],
                [each.new.channel for each in drafts],
                [each.new.priority for each in drafts],
                [each.content for each in drafts],
                ["true" if each.is_rendered else "" for each in drafts],
                [each.new.template_id or "" for each in drafts],
                [each.template_name or "" for each in drafts],
                [_json(each.new.variables) for each in drafts],
                [each.idempotency_key or "" for each in drafts],
                [
                    "" if each.new.scheduled_at is None else _exact(each.new.scheduled_at)
                    for each in drafts
                ],
            ),
        ),
        array_literal([_exact(each.expires_at) for each in drafts]),
        array_literal([ATTEMPTS_ALLOWED[each.new.priority] for each in drafts]),
        text_array_literal([each.new.trace.traceparent for each in drafts]),
        text_array_literal([each.new.trace.correlation_id for each in drafts]),
        array_literal([rfc3339(each.created_at) for each in drafts]),
    )


def _json(variables: dict[str, str] | None) -> str:
    return "" if variables is None else _encode(variables).decode()


def _exact(at: datetime) -> str:
    """With its microseconds, as a literal of an array can have it."""
    return _encode(at).decode().strip('"')


INSERT_NOTIFICATIONS = """
    INSERT INTO notifications (
        id, caller, batch_id, recipient, channel, priority, content, rendered, template_id,
        template_name, template_variables, idempotency_key, status, scheduled_at, expires_at,
        max_retries, traceparent, correlation_id, created_at, updated_at
    )
    SELECT id, caller, nullif(batch_id, '')::uuid, recipient, channel, priority, content,
           rendered <> '', nullif(template_id, '')::uuid, nullif(template_name, ''),
           nullif(variables, '')::jsonb, nullif(idempotency_key, ''),
           CASE scheduled_at WHEN '' THEN 'pending' ELSE 'scheduled' END,
           nullif(scheduled_at, '')::timestamptz, expires_at, max_retries, traceparent,
           correlation_id, created_at, created_at
    FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                %s::timestamptz[], %s::smallint[], %s::text[], %s::text[], %s::timestamptz[])
        AS fresh (id, caller, batch_id, recipient, channel, priority, content, rendered,
                  template_id, template_name, variables, idempotency_key, scheduled_at, expires_at,
                  max_retries, traceparent, correlation_id, created_at)
"""
# A row that is there is past its 24 hours, or its notification is gone: its lock is ours.
KEEP_KEYS = """
    INSERT INTO notification_keys (id, fingerprint, notification_id)
    SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[])
    ON CONFLICT (id) DO UPDATE
    SET fingerprint = excluded.fingerprint, notification_id = excluded.notification_id,
        created_at = clock_timestamp()
"""


def inserting_batch(*, id_: str, caller: str, total: int, created_at: datetime) -> Statement:
    """What writes the row of a batch."""
    return INSERT_BATCH, (id_, caller, total, _exact(created_at))


INSERT_BATCH = """
    INSERT INTO notification_batches (id, caller, total_count, created_at)
    VALUES (%s::uuid, %s, %s, %s::timestamptz)
"""
