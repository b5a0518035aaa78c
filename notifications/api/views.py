"""Endpoints of notifications: parse, one call, answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

import msgspec
from django.http import HttpResponse
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from notifications import acceptance, queries, services
from notifications.api import schema
from notifications.api.commands import accepted, asking, owner
from notifications.api.fields import NotificationPageSerializer
from notifications.api.reading import read_notification
from notifications.api.refusals import StateConflict, as_errors
from notifications.queries import Filter, Owner, cursor_to_text
from notifications.status_log import Changed
from outbox.database.round_trips import Change
from restapi.errors import id_in_path
from restapi.idempotency import key_of, respond_once

__all__ = [
    "AttemptsView",
    "CancelNotificationView",
    "NotificationMetricsView",
    "NotificationView",
    "NotificationsView",
    "RetryView",
    "without_fields",
]


def without_fields(request: Request, id_: UUID) -> UUID:
    """The id, of a request whose body, if there is one, is an object. Raises ParseError and
    ValidationError."""
    if not isinstance(request.data, dict):
        raise ValidationError("The body must be a JSON object.")
    return id_


class NotificationsView(APIView):
    @schema.list_notifications
    def get(self, request: Request) -> Response:
        """One page of what the caller has created, newest first."""
        wanted = NotificationPageSerializer.of(request).validated_data
        limit, after = wanted.pop("page_size"), wanted.pop("cursor", None)
        page = queries.notifications_page(owner(), Filter(**wanted), limit=limit, after=after)
        following = None if page.next is None else cursor_to_text(page.next)
        return Response(
            {"data": [msgspec.Raw(words) for words in page.words], "next_cursor": following}
        )

    @schema.create_notification
    def post(self, request: Request) -> HttpResponse:
        """Accept one; once for each Idempotency-Key, and for each idempotency_key of a body."""
        key = key_of(request)  # before DRF reads the body
        with as_errors():
            return respond_once(
                key,
                lambda: read_notification(request.data, asking()),
                write=acceptance.accepting_or_refusing,
                answer=accepted,
            )


class NotificationView(APIView):
    @schema.get_notification
    def get(self, request: Request, notification_id: str) -> Response:
        """One of the caller's."""
        id_ = id_in_path(notification_id, "notification")
        words = queries.notification_in_words(id_, owner())
        if words is None:
            raise NotFound(f"There is no notification {id_}.")
        return Response(msgspec.Raw(words))


class AttemptsView(APIView):
    @schema.list_attempts
    def get(self, request: Request, notification_id: str) -> Response:
        id_ = id_in_path(notification_id, "notification")
        if queries.state_of(id_, owner()) is None:
            raise NotFound(f"There is no notification {id_}.")
        return Response({"data": msgspec.Raw(queries.attempts_in_words(id_))})


class _ChangeView(APIView):
    """Moves one notification to another status, where its status allows that."""

    done: ClassVar[str]
    becomes: ClassVar[str]
    change: Callable[..., Sequence[Changed]]  # the one call into the domain

    def perform(self, request: Request, notification_id: str) -> HttpResponse:
        """200 with the new status, 404, or 409 with the true one; once for each Idempotency-Key."""
        id_, key = id_in_path(notification_id, "notification"), key_of(request)
        return respond_once(
            key,
            lambda: without_fields(request, id_),
            write=partial(self._write, whose=owner()),
            answer=lambda _, status: (200, {"status": status}),
        )

    def _write(self, ids: Sequence[UUID], *, whose: Owner) -> Change[str]:
        [id_] = ids
        if not self.change(ids, owner=whose):
            # It may be another by now. Under its lock it stays what the answer says it is.
            state = queries.state_of(id_, whose, locked=True)
            if state is None:
                raise NotFound(f"There is no notification {id_}.")
            if not self.change(ids, owner=whose):
                raise StateConflict(self.done, state)
        return Change([self.becomes])


class CancelNotificationView(_ChangeView):
    done = becomes = "cancelled"
    change = staticmethod(services.cancel)

    @schema.cancel_notification
    def patch(self, request: Request, notification_id: str) -> HttpResponse:
        return self.perform(request, notification_id)


class RetryView(_ChangeView):
    done, becomes = "sent again", "pending"
    change = staticmethod(services.retry)

    @schema.retry_notification
    def post(self, request: Request, notification_id: str) -> HttpResponse:
        return self.perform(request, notification_id)


class NotificationMetricsView(APIView):
    @schema.get_metrics
    def get(self, request: Request) -> Response:
        """What was sent on each channel, and what failed."""
        channels: dict[str, Any] = {}
        for channel, figures in queries.channel_figures().items():
            finished = figures.delivered + figures.failed
            channels[channel] = {
                "sent": figures.delivered,
                "failed": figures.failed,
                "avg_latency_ms": _ratio(figures.latency_ms, figures.delivered),
                "success_rate": _ratio(100 * figures.delivered, finished),
            }
        return Response({"channels": channels})


def _ratio(whole_: int, parts: int) -> float:
    """To two places; 0 of nothing."""
    return round(whole_ / parts, 2) if parts else 0
