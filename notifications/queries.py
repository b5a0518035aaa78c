"""Reading notifications, batches, templates and figures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import QuerySet

from notifications.models import Channel, Template
from outbox.database.arrays import array_literal
from outbox.database.ask import row_of, rows_of
from outbox.database.round_trips import Row, Statement
from outbox.envelope import rfc3339_of
from restapi.cursors import from_base64url, to_base64url

__all__ = [
    "WORDS",
    "Filter",
    "NotificationPage",
    "NotificationState",
    "Owner",
    "TemplateRow",
    "attempts_in_words",
    "batch_in_words",
    "channel_figures",
    "cursor_of",
    "cursor_to_text",
    "notification_in_words",
    "notifications_in_words",
    "notifications_page",
    "page_statement",
    "read_templates",
    "state_of",
    "templates_of",
    "templates_of_owner",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RANDOM_BITS = 80  # of a uuid7, behind its milliseconds


def _moment(column: str) -> str:
    return f"{rfc3339_of(f'notifications.{column}')} AS {column}"


# PostgreSQL puts a notification into the contract's words, as orders/queries.py has it do.
WORDS = f"""
    SELECT row_to_json(shown) FROM (
        SELECT notifications.id, notifications.batch_id, notifications.idempotency_key,
               notifications.recipient, notifications.channel, notifications.content,
               notifications.priority, notifications.status, notifications.provider_message_id,
               {_moment("scheduled_at")}, {_moment("expires_at")}, {_moment("sent_at")},
               {_moment("failed_at")}, notifications.retry_count, notifications.max_retries,
               notifications.error_message, notifications.template_id,
               notifications.template_variables, notifications.rendered,
               {_moment("created_at")}, {_moment("updated_at")}
    ) AS shown
"""


class Owner(NamedTuple):
    """Who asks: `sees_all` of everybody's, else what the caller has created."""

    caller: str
    sees_all: bool

    def may_see(self, caller: str) -> bool:
        """Whether what this caller has created is theirs to see."""
        return self.sees_all or caller == self.caller


# -- notifications


def notifications_in_words(ids: Collection[str]) -> Statement:
    """The statement that reads these notifications, as (id, caller, JSON object of the contract); unknown ids have no row."""
    sql = f"SELECT id::text, caller, ({WORDS})::text FROM notifications WHERE id = ANY(%s::uuid[])"
    return sql, (array_literal(ids),)


def notification_in_words(id_: UUID, owner: Owner) -> str | None:
    row = row_of(*notifications_in_words([str(id_)]))
    return str(row[2]) if row and owner.may_see(row[1]) else None


class NotificationState(NamedTuple):
    """Its status, and whether recipient and text were erased."""

    status: str
    is_erased: bool


def state_of(id_: UUID, owner: Owner, *, locked: bool = False) -> NotificationState | None:
    """The state of one of theirs, or None. `locked`: it stays so until the open transaction ends."""
    sql = "SELECT caller, status, recipient = '' FROM notifications WHERE id = %s"
    row = row_of(f"{sql} FOR UPDATE" if locked else sql, (id_,))
    return NotificationState(row[1], row[2]) if row and owner.may_see(row[0]) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The conditions of a list; None: any. `date_from` is included, `date_to` not."""

    status: str | None = None
    channel: str | None = None
    recipient: str | None = None
    batch_id: UUID | None = None
    date_from: datetime | None = None
    date_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class NotificationPage:
    """JSON objects, newest first; `next` is None on the last page."""

    words: Sequence[str]
    next: UUID | None


def notifications_page(
    owner: Owner, narrowed: Filter, *, limit: int, after: UUID | None = None
) -> NotificationPage:
    """One page, newest first, behind `after`. An id holds its creation, so its order is that of time,
    and none that was there when the first page was read is repeated or skipped."""
    rows = rows_of(*page_statement(owner, narrowed, limit=limit, after=after))
    words = [text for _, text in rows[:limit]]
    return NotificationPage(words, rows[limit - 1][0] if len(rows) > limit else None)


def page_statement(
    owner: Owner, narrowed: Filter, *, limit: int, after: UUID | None = None
) -> tuple[str, Sequence[Any]]:
    """What reads a page and one row more, as (id, JSON object): SQL and parameters."""
    conditions: dict[str, Any] = {
        "caller = %s": None if owner.sees_all else owner.caller,
        "status = %s": narrowed.status,
        "channel = %s": narrowed.channel,
        "recipient = %s": narrowed.recipient,
        "batch_id = %s": narrowed.batch_id,
        "id >= %s": narrowed.date_from and _first_id_at(narrowed.date_from),
        "id < %s": narrowed.date_to and _first_id_at(narrowed.date_to),
    }
    given = {sql: value for sql, value in conditions.items() if value is not None}
    where, parameters = list(given), list(given.values())
    if after is not None:
        where.append("id < %s")
        parameters.append(after)
    sql = (
        f"SELECT id, ({WORDS})::text FROM notifications"
        f" WHERE {' AND '.join(where) or 'true'} ORDER BY id DESC LIMIT %s"
    )
    return sql, [*parameters, limit + 1]


def _first_id_at(moment: datetime) -> UUID:
    """Not above any id of this moment or later, above all from before: ids hold milliseconds."""
    milliseconds = -((_EPOCH - moment) // timedelta(milliseconds=1))
    at_most = (1 << 48) - 1
    return UUID(int=min(max(milliseconds, 0), at_most) << _RANDOM_BITS)


def cursor_to_text(id_: UUID) -> str:
    """For a URL: 16 bytes in base64url."""
    return to_base64url(id_.bytes)


def cursor_of(text: str) -> UUID:
    """The inverse. Raises ValueError for anything else."""
    return UUID(bytes=from_base64url(text))


_ATTEMPTS = f"""
    SELECT coalesce(json_agg(shown ORDER BY shown.attempt), '[]')::text FROM (
        SELECT number AS attempt, {rfc3339_of("at")} AS at, provider, outcome, status_code,
               latency_ms, error, {rfc3339_of("next_attempt_at")} AS next_attempt_at
        FROM notification_attempts WHERE notification_id = %s ORDER BY number DESC LIMIT %s
    ) AS shown
"""
ATTEMPTS_SHOWN = 1000


def attempts_in_words(id_: UUID) -> str:
    """Its attempts, a JSON array in their order; of very many the newest."""
    return str(row_of(_ATTEMPTS, (id_, ATTEMPTS_SHOWN))[0])


# -- batches

_BATCH = f"""
    SELECT batch.caller, (SELECT row_to_json(shown) FROM (
        SELECT batch.id, batch.total_count, waiting AS pending_count, delivered AS delivered_count,
               failed AS failed_count, cancelled AS cancelled_count,
               {rfc3339_of("batch.created_at")} AS created_at
    ) AS shown)::text
    FROM notification_batches AS batch CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE status IN ('pending', 'scheduled', 'processing')) AS waiting,
               count(*) FILTER (WHERE status = 'delivered') AS delivered,
               count(*) FILTER (WHERE status = 'failed') AS failed,
               count(*) FILTER (WHERE status = 'cancelled') AS cancelled
        FROM notifications WHERE batch_id = batch.id
    ) AS counted
    WHERE batch.id = %s
"""


def batch_in_words(id_: UUID, owner: Owner) -> str | None:
    """One of theirs with its counts as they are now, or None."""
    row = row_of(_BATCH, (id_,))
    return str(row[1]) if row and owner.may_see(row[0]) else None


# -- templates


class TemplateRow(NamedTuple):
    """What a notification needs of a template."""

    id: str
    caller: str
    name: str
    channel: str
    body: str


def templates_of_owner(owner: Owner) -> QuerySet[Template]:
    """Theirs, by name."""
    templates = Template.objects.order_by("name", "id")
    return templates if owner.sees_all else templates.filter(caller=owner.caller)


def read_templates(ids: Collection[str]) -> Statement:
    """What reads those of these templates that there are."""
    sql = """
        SELECT id::text, caller, name, channel, body FROM notification_templates
        WHERE id = ANY(%s::uuid[])
    """
    return sql, (array_literal(ids),)


def templates_of(rows: Sequence[Row]) -> dict[str, TemplateRow]:
    """What its rows say, by id."""
    return {row[0]: TemplateRow._make(row) for row in rows}


# -- figures


class Figures(NamedTuple):
    """Of one channel; `latency_ms` is the sum over what was delivered."""

    delivered: int
    failed: int
    latency_ms: int


# What is folded, and what the log has beyond that: numbered later, or not numbered yet.
_FIGURES = """
    WITH folded AS (
        SELECT coalesce(min(through_seq), 0) AS through FROM notification_figures
    ), beyond AS (
        SELECT channel,
               count(*) FILTER (WHERE status = 'delivered') AS delivered,
               count(*) FILTER (WHERE status = 'failed')
               - count(*) FILTER (WHERE previous = 'failed') AS failed,
               sum(latency_ms)::bigint AS latency_ms
        FROM notification_status_log
        WHERE seq IS NULL OR seq > (SELECT through FROM folded)
        GROUP BY channel
    )
    SELECT channel,
           coalesce(figures.delivered, 0) + coalesce(beyond.delivered, 0),
           coalesce(figures.failed, 0) + coalesce(beyond.failed, 0),
           coalesce(figures.latency_ms, 0) + coalesce(beyond.latency_ms, 0)
    FROM unnest(%s::text[]) AS channel
    LEFT JOIN notification_figures AS figures USING (channel)
    LEFT JOIN beyond USING (channel)
"""


def channel_figures() -> dict[str, Figures]:
    """Channel -> its figures as they are now."""
    return {
        channel: Figures(*figures) for channel, *figures in rows_of(_FIGURES, (Channel.values,))
    }
