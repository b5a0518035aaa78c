"""From the bodies of POST /notifications and its batch to commands, and from results to answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from notifications import acceptance, queries
from notifications.acceptance import Accepted, AcceptedBatch, NewBatch, NewNotification
from notifications.api.reading import Asking, read_notification
from notifications.queries import Owner
from outbox.database.round_trips import Row
from outbox.envelope import rfc3339
from restapi.answers import Answer, json_answer
from restapi.context import caller, is_granted, trace_context
from restapi.hot_path import HotPath, HotRead
from restapi.json import parse_json

__all__ = [
    "CREATE_NOTIFICATION",
    "READ_NOTIFICATION",
    "SEES_ALL",
    "accepted",
    "accepted_batch",
    "asking",
    "owner",
]

SEES_ALL = "notifications:all"


def owner() -> Owner:
    return Owner(caller(), is_granted(SEES_ALL))


def asking() -> Asking:
    """What is the same for all that this request asks for."""
    return Asking(
        caller=caller(),
        sees_all=is_granted(SEES_ALL),
        trace=trace_context(),
        now=datetime.now(UTC),
    )


def accepted(new: NewNotification, result: Accepted) -> tuple[int, Any]:
    """Status and body."""
    return 201, msgspec.Raw(result.words)


def accepted_batch(new: NewBatch, result: AcceptedBatch) -> tuple[int, Any]:
    """Status and body. Nothing of it can be delivered, failed or cancelled yet."""
    batch = {
        "id": result.id,
        "total_count": result.total,
        "pending_count": result.total,
        "delivered_count": 0,
        "failed_count": 0,
        "cancelled_count": 0,
        "created_at": rfc3339(result.created_at),
    }
    return 201, {
        "batch": batch,
        "notifications": [msgspec.Raw(each.words) for each in result.notifications],
    }


CREATE_NOTIFICATION = HotPath(
    method="POST",
    path="/api/v1/notifications",
    route="api/v1/notifications",
    read=lambda asked: read_notification(parse_json(asked.body), asking()),
    write=acceptance.accepting,
    answer=accepted,
)


_Question = tuple[str, Owner]


def _notifications(questions: Sequence[_Question], rows: Sequence[Row]) -> Sequence[Answer | None]:
    found = {id_: (caller_, words) for id_, caller_, words in rows}
    answers: list[Answer | None] = []
    for id_, who in questions:
        whose, words = found.get(id_, ("", ""))
        is_theirs = bool(words) and who.may_see(whose)
        answers.append(json_answer(200, msgspec.Raw(words)) if is_theirs else None)
    return answers


READ_NOTIFICATION = HotRead(
    path="/api/v1/notifications/{id}",
    route="api/v1/notifications/<str:notification_id>",
    read=lambda asked: (asked.id, owner()),
    statement=lambda questions: queries.notifications_in_words({id_ for id_, _ in questions}),
    answers=_notifications,
)
