"""Notifications to accept, and rows as delivery leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import uuid_utils
from django.db import connection

from notifications.acceptance import Accepted, NewBatch, accepting_batches, accepting_or_refusing
from notifications.api.reading import Asking, read_batch, read_notification
from notifications.models import Notification, Status, Template
from notifications.queries import Owner
from outbox.database.round_trips import run
from outbox.database.unit_of_work import unit_of_work
from outbox.envelope import TraceContext, rfc3339
from restapi.tests.sessions import other_session

TRACE = TraceContext(f"00-{'1' * 32}-{'2' * 16}-01", "c-1")
EVERYBODY = Owner("", sees_all=True)
SMS = {"recipient": "+905000000000", "channel": "sms", "content": "Your code is 1234"}
EMAIL = {"recipient": "ann@example.com", "channel": "email", "content": "Hello"}
PUSH = {"recipient": "token", "channel": "push", "content": "Hello"}
NEXT_MONTH = rfc3339(datetime.now(UTC) + timedelta(days=30))


def asking(caller: str = "shop", *, sees_all: bool = False) -> Asking:
    return Asking(caller=caller, sees_all=sees_all, trace=TRACE, now=datetime.now(UTC))


def accept(*bodies: dict[str, Any], caller: str = "shop") -> list[Accepted]:
    """Accept each as its request would, all in one transaction. Raises what is refused."""
    new = [read_notification(body, asking(caller)) for body in bodies]
    with unit_of_work():
        found = run(accepting_or_refusing(new))
    return [each for each in found if each is not None]


def accept_batch(*bodies: dict[str, Any], caller: str = "shop") -> Any:
    new = NewBatch(caller, read_batch({"notifications": list(bodies)}, asking(caller)))
    with unit_of_work():
        [accepted] = run(accepting_batches([new]))
    return accepted


def template(body: str, *, channel: str = "sms", caller: str = "shop", name: str = "t") -> str:
    """Its id."""
    id_ = UUID(str(uuid_utils.uuid7()))
    Template.objects.create(id=id_, caller=caller, name=name, channel=channel, body=body)
    return str(id_)


def set_status(ids: Sequence[str], status: Status, **columns: Any) -> None:
    """As a sender leaves them, without the log."""
    due = columns.pop("due_at", None)
    Notification.objects.filter(id__in=ids).update(status=status, due_at=due, **columns)


def failed(*bodies: dict[str, Any], caller: str = "shop") -> list[str]:
    """The ids of notifications that have failed."""
    ids = [each.id for each in accept(*(bodies or (SMS,)), caller=caller)]
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE notifications SET status = 'failed', failed_at = clock_timestamp(),"
            " error_message = 'answered 400', retry_count = 1 WHERE id = ANY(%s::uuid[])",
            (ids,),
        )
    return ids


def somebody_waits() -> bool:
    """Whether a session waits for a lock of another."""
    with other_session() as other:
        found = other.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        )
        [(count,)] = found.fetchall()
    return bool(count)
