"""The journey of a notification: accepted, its event, made ready, each attempt, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from eventsite.reports.stops import Journey, Stop, between, request_of, worker_of
from notifications.delivery.channels import channel_statuses
from notifications.delivery.turns import queue_of
from notifications.events import PENDING_EVENTS
from notifications.models import Attempt, Notification, Status
from outbox.envelope import rfc3339

__all__ = ["notification_of", "sending"]


def notification_of(id_: UUID) -> Notification | None:
    """The notification with this id, without what it says and to whom."""
    rows = Notification.objects.defer("recipient", "content", "template_variables")
    return rows.filter(id=id_).first()


def sending(notification: Notification, event: Journey | None) -> Journey:
    """Its journey; `event`: that of its event, if the outbox holds it."""
    attempts = list(Attempt.objects.filter(notification_id=notification.id).order_by("number"))
    behind = [stop for stop in event.stops if stop.at] if event else []
    # Its own row knows of the request what the event's knows, and when it was accepted.
    ahead = (
        [each for each in event.stops if not each.at and each.name != "request"] if event else []
    )
    happened = [*behind, *_happened(notification, attempts)]
    still = [*(ahead if notification.ready_at is None else ()), *_ahead(notification)]
    return Journey(
        event_id=notification.id,
        type=f"{notification.priority} notification by {notification.channel}",
        topic=PENDING_EVENTS[notification.priority].topic.name,
        key=str(notification.id),
        traceparent=notification.traceparent,
        correlation_id=notification.correlation_id,
        stops=[*_timed(notification.created_at, happened), *still],
    )


def _timed(start: datetime, stops: Sequence[Stop]) -> Iterator[Stop]:
    """In the order of their times, with the times between."""
    last = start
    for stop in sorted(stops, key=lambda stop: stop.at or start):
        at = stop.at or start
        yield replace(stop, total_ms=between(start, at), step_ms=between(last, at))
        last = at


def _happened(notification: Notification, attempts: Sequence[Attempt]) -> Iterator[Stop]:
    request = request_of(notification.traceparent, notification.correlation_id)
    yield Stop(
        name="request",
        state="accepted",
        at=notification.created_at,
        detail=request.detail if request else "",
        process="web",
    )
    sender = worker_of(queue_of(notification.priority))
    if notification.ready_at is not None:
        yield Stop(name="notification", state="ready", at=notification.ready_at, process=sender)
    for attempt in attempts:
        yield Stop(
            name=attempt.provider or notification.channel,
            state=attempt.outcome or "under way",
            at=attempt.at,
            detail=_in_a_line(attempt),
            process=sender,
        )
    ended = {
        Status.DELIVERED.value: notification.sent_at,
        Status.FAILED.value: notification.failed_at,
        Status.CANCELLED.value: notification.updated_at,
    }.get(notification.status)
    if ended is not None:
        detail = notification.error_message or notification.provider_message_id or ""
        yield Stop(name="notification", state=notification.status, at=ended, detail=detail)


def _in_a_line(attempt: Attempt) -> str:
    parts = [f"attempt {attempt.number}"]
    if attempt.status_code is not None:
        parts.append(f"answered {attempt.status_code}")
    if attempt.latency_ms is not None:
        parts.append(f"after {attempt.latency_ms} ms")
    if attempt.error:
        parts.append(attempt.error)
    if attempt.next_attempt_at is not None:
        parts.append(f"next at {rfc3339(attempt.next_attempt_at)}")
    return ", ".join(parts)


def _ahead(notification: Notification) -> Iterator[Stop]:
    sender = worker_of(queue_of(notification.priority))
    if notification.status == Status.SCHEDULED and notification.scheduled_at is not None:
        detail = f"until {rfc3339(notification.scheduled_at)}"
        yield Stop(name="notification", state="scheduled", detail=detail, process=sender)
    elif notification.status == Status.PROCESSING and notification.due_at is not None:
        detail = f"its lease ends {rfc3339(notification.due_at)}"
        yield Stop(name="notification", state="processing", detail=detail, process=sender)
    elif notification.status == Status.PENDING:
        due = notification.due_at
        detail = f"to be sent from {rfc3339(due)} on" if due else "to be made ready"
        for control in channel_statuses():
            if control.paused and control.channel == notification.channel:
                why = control.reason or "no reason given"
                detail += f"; its channel is paused by {control.changed_by}: {why}"
        yield Stop(name="notification", state="waiting", detail=detail, process=sender)
