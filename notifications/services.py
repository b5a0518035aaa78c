"""Changing notifications and templates: what people ask for, apart from accepting and sending."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import uuid_utils
from django.conf import settings
from django.db import IntegrityError
from django.db.models import Func

from notifications.models import Priority, Template
from notifications.queries import Owner, templates_of_owner
from notifications.status_log import CHANGED, Changed, recording
from outbox.database.ask import rows_of
from outbox.database.round_trips import send

__all__ = [
    "NameTaken",
    "cancel",
    "cancel_batch",
    "change_template",
    "create_template",
    "delete_template",
    "discard",
    "retry",
]

# Each locks what it may change, in the order of ids, looks at the status under the lock, and
# changes only that: a worker that has claimed one in the meantime keeps it.
_WHOSE = "(%s OR caller = %s)"
_CANCEL = f"""
    WITH before AS MATERIALIZED (
        SELECT id, status FROM notifications
        WHERE {{which}} AND {_WHOSE} AND status IN ('pending', 'scheduled')
        ORDER BY id FOR UPDATE
    )
    UPDATE notifications AS changed
    SET status = 'cancelled', due_at = NULL, waits_for = '', updated_at = clock_timestamp()
    FROM before WHERE changed.id = before.id
    RETURNING {CHANGED}
"""
# With fresh attempts, and as much time as a new one has where its own is over.
_RETRY = f"""
    WITH before AS MATERIALIZED (
        SELECT id, status FROM notifications
        WHERE id = ANY(%s::uuid[]) AND {_WHOSE} AND status = 'failed'
          AND recipient <> ''  -- erased
        ORDER BY id FOR UPDATE
    )
    UPDATE notifications AS changed
    SET status = 'pending', retry_count = 0, round = changed.round + 1, failed_at = NULL,
        error_message = NULL, discarded_at = NULL, waits_for = '', updated_at = clock_timestamp(),
        ready_at = clock_timestamp(), due_at = clock_timestamp(),
        expires_at = greatest(
            changed.expires_at,
            clock_timestamp() + make_interval(
                secs => CASE changed.priority WHEN 'high' THEN %s WHEN 'normal' THEN %s ELSE %s END
            )
        )
    FROM before WHERE changed.id = before.id
    RETURNING {CHANGED}
"""


def cancel(ids: Sequence[UUID], *, owner: Owner) -> list[Changed]:
    """Cancel those of the owner's notifications that are pending or scheduled; returns them. Runs in the open
    transaction: after its COMMIT nobody begins to send them."""
    return _change(_CANCEL.format(which="id = ANY(%s::uuid[])"), list(ids), owner)


def cancel_batch(batch_id: UUID, *, owner: Owner) -> list[Changed]:
    """The same for all of a batch."""
    return _change(_CANCEL.format(which="batch_id = %s"), batch_id, owner)


def retry(ids: Sequence[UUID], *, owner: Owner) -> list[Changed]:
    """Make those of the owner's notifications that failed pending again; returns them. Runs in the open
    transaction."""
    expires = settings.NOTIFICATION_EXPIRES_SECONDS
    return _change(_RETRY, list(ids), owner, *(expires[each] for each in Priority.values))


def discard(ids: Sequence[UUID], *, owner: Owner) -> list[UUID]:
    """Take failed notifications off the list of dead letters; returns their ids. Their status stays `failed`."""
    rows = rows_of(
        f"""
        WITH failed AS MATERIALIZED (
            SELECT id FROM notifications
            WHERE id = ANY(%s::uuid[]) AND {_WHOSE} AND status = 'failed'
              AND discarded_at IS NULL
            ORDER BY id FOR UPDATE
        )
        UPDATE notifications AS changed SET discarded_at = clock_timestamp()
        FROM failed WHERE changed.id = failed.id
        RETURNING changed.id
        """,
        [list(ids), owner.sees_all, owner.caller],
    )
    return [row[0] for row in rows]


def _change(sql: str, which: object, owner: Owner, *more: float) -> list[Changed]:
    rows = rows_of(sql, [which, owner.sees_all, owner.caller, *more])
    changes = [Changed(*row) for row in rows]
    send(recording(changes))
    return changes


# -- templates


class NameTaken(Exception):
    """The caller has another template of this name."""


def create_template(*, caller: str, name: str, channel: str, body: str) -> Template:
    """A new one, in the open transaction. Raises NameTaken: then that must be rolled back."""
    id_ = UUID(str(uuid_utils.uuid7()))
    template = Template(id=id_, caller=caller, name=name, channel=channel, body=body)
    try:
        template.save(force_insert=True)
    except IntegrityError as error:
        raise NameTaken(name) from error
    template.refresh_from_db()
    return template


def change_template(id_: UUID, *, owner: Owner, name: str, body: str) -> Template | None:
    """Name and body of one of the owner's, in the open transaction; None: there is none. Raises
    NameTaken as above."""
    found = templates_of_owner(owner).filter(id=id_)
    try:
        if not found.update(name=name, body=body, updated_at=Func(function="clock_timestamp")):
            return None
    except IntegrityError as error:
        raise NameTaken(name) from error
    return found.get()


def delete_template(id_: UUID, *, owner: Owner) -> bool:
    """Whether it was there. Notifications keep its text and id."""
    deleted, _ = templates_of_owner(owner).filter(id=id_).delete()
    return bool(deleted)
