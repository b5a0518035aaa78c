"""Pages of the backbone's tables: what waits, how far each handler is, and who has applied what."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from outbox import queries
from outbox.admin.readonly import PAUSED, ReadOnlyAdmin, clipped, journey, short_id, utc, whole_id
from outbox.admin.search import WantedId, of_events
from outbox.envelope import rfc3339
from outbox.models import BridgePosition, InboxReceipt, OperatorAction, OutboxEvent

__all__ = [
    "ANY_ID",
    "BridgePositionAdmin",
    "InboxReceiptAdmin",
    "OperatorActionAdmin",
    "OutboxEventAdmin",
]

ANY_ID = "A whole id: of an event, an order or a customer; a key, or a correlation id"


class WaitingFilter(admin.SimpleListFilter):
    """The one status with an index of its own: what no drain has published yet."""

    title = "status"
    parameter_name = "waiting"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "new: waiting to be published")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(status=OutboxEvent.Status.NEW) if self.value() else queryset


@admin.register(OutboxEvent)
class OutboxEventAdmin(ReadOnlyAdmin):
    """Newest first; what waits in the order in which drains take it."""

    search_help_text = ANY_ID
    list_filter = (WaitingFilter,)
    list_display = (
        "id",
        short_id("event_id"),
        "type",
        "topic",
        short_id("key"),
        "status",
        "whereabouts",
        utc("created_at"),
        "published_after",
    )
    fields = (
        ("id", "event_id", "status"),
        ("type", "topic", "key", "source"),
        ("created_at", "published_at", "whereabouts"),
        "receipts",
        journey("event_id"),
        ("traceparent", "correlation_id"),
        ("lane", "payload"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("payload")  # up to 1 MB each

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """What waits is read along event_outbox_pending, whatever the planner thinks of its size."""
        return ("lane", "id") if request.GET.get(WaitingFilter.parameter_name) else ("-id",)

    @admin.display(description="age, or partition @ offset")
    def whereabouts(self, event: OutboxEvent) -> str:
        if event.offset is not None:
            return f"{event.partition} @ {event.offset}"
        return f"{(timezone.now() - event.created_at).total_seconds():.1f} s old"

    def find(self, rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
        return of_events(rows, wanted)

    @admin.display(description="published after")
    def published_after(self, event: OutboxEvent) -> str:
        """The time itself is on the event's page."""
        if event.published_at is None:
            return "-"
        return f"{(event.published_at - event.created_at).total_seconds():.3f} s"

    @admin.display(description="receipts")
    def receipts(self, event: OutboxEvent) -> SafeString:
        rows = [
            (receipt.handler, receipt.get_outcome_display(), rfc3339(receipt.applied_at))
            for receipt in queries.receipts_of(event.event_id)
        ]
        return format_html_join(SafeString("<br>"), "{}: {} {}", rows) or SafeString("none yet")


@admin.register(BridgePosition)
class BridgePositionAdmin(ReadOnlyAdmin):
    """One row a handler and partition: a small table, so it may be filtered by anything."""

    ordering = ("handler", "topic", "partition")
    search_help_text = "A whole name or id: of a handler, or a topic"
    list_filter = ("handler", "topic", "paused")
    list_display = (
        "handler",
        "topic",
        "partition",
        "next_offset",
        "attempts",
        PAUSED,
        clipped("last_error"),
        utc("failed_at"),
        utc("updated_at"),
    )

    def find(self, rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
        return rows.filter(Q(handler=wanted.text) | Q(topic=wanted.text) | Q(topic_id=wanted.uuid))


@admin.register(InboxReceipt)
class InboxReceiptAdmin(ReadOnlyAdmin):
    """Newest first."""

    search_help_text = ANY_ID
    ordering = ("-id",)
    list_display = (whole_id("event_id"), "handler", "outcome", utc("applied_at"))

    def find(self, rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
        return of_events(rows, wanted)


@admin.register(OperatorAction)
class OperatorActionAdmin(ReadOnlyAdmin):
    """Who did what, newest first; nobody changes it."""

    ordering = ("-id",)
    list_display = (
        "id",
        utc("at"),
        "by",
        "what",
        clipped("subject"),
        clipped("why"),
        "done",
        "skipped",
        clipped("outcome"),
    )
    fields = (
        ("id", "what", "by"),
        "subject",
        "why",
        ("at", "ended_at"),
        ("asked", "done", "skipped"),
        "outcome",
    )
