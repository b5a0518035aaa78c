"""Failed notifications as dead letters: each is its own, and `manage.py dead_letters` acts on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from django.db import transaction

from notifications import services
from notifications.events import PENDING_EVENTS
from notifications.models import Notification, Status
from notifications.queries import Owner
from outbox.declaration import AppLetter, LetterQuery
from outbox.envelope import parse_id, rfc3339

__all__ = ["EVERYBODY", "FAILED_NOTIFICATIONS"]

EVERYBODY = Owner("", sees_all=True)
_PRIORITY_OF = {event.topic.name: priority for priority, event in PENDING_EVENTS.items()}

log = structlog.get_logger("notifications")


class FailedNotifications:
    """Those that have failed and that nobody has discarded."""

    name = "notifications"
    permission = "notifications.change_notification"

    def find(self, query: LetterQuery, limit: int) -> Sequence[AppLetter]:
        """By their ids, which grow with time."""
        failed = Notification.objects.filter(status=Status.FAILED, discarded_at=None)
        if query.ids:
            failed = failed.filter(id__in=query.ids)
        if query.topic:
            failed = failed.filter(priority=_PRIORITY_OF.get(query.topic, ""))
        if query.key is not None:
            id_ = parse_id(query.key)
            failed = failed.filter(id=id_) if id_ else failed.none()
        if query.error:
            failed = failed.filter(error_message__contains=query.error)
        if query.since is not None:
            failed = failed.filter(failed_at__gte=query.since)
        rows = failed.defer("recipient", "content", "template_variables").order_by("id")
        return [_letter(row) for row in rows[:limit]]

    def replay(self, ids: Sequence[UUID], *, by: str) -> Sequence[UUID]:
        """Sent again, with fresh attempts."""
        with transaction.atomic():
            changed = services.retry(ids, owner=EVERYBODY)
        log.info("notifications_resolved", action="retry", count=len(changed), by=by)
        return [UUID(each.notification_id) for each in changed]

    def discard(self, ids: Sequence[UUID], *, by: str) -> Sequence[UUID]:
        """They stay failed."""
        done = services.discard(ids, owner=EVERYBODY)
        log.info("notifications_resolved", action="discard", count=len(done), by=by)
        return done


FAILED_NOTIFICATIONS = FailedNotifications()


def _letter(row: Notification) -> AppLetter:
    """Without recipient and text: who looks for failures needs neither."""
    failed_at = row.failed_at or row.updated_at
    details: dict[str, Any] = {
        "channel": row.channel,
        "priority": row.priority,
        "caller": row.caller,
        "batch_id": str(row.batch_id) if row.batch_id else None,
        "attempts_allowed": row.max_retries,
        "round": row.round,
        "created_at": rfc3339(row.created_at),
        "expires_at": rfc3339(row.expires_at),
        "correlation_id": row.correlation_id,
        "traceparent": row.traceparent,
    }
    return AppLetter(
        id=row.id,
        topic=PENDING_EVENTS[row.priority].topic.name,
        key=str(row.id),
        attempts=row.retry_count,
        error=row.error_message or "",
        failed_at=failed_at,
        details=details,
    )
