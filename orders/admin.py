"""Pages of the orders: each with its lines and its history, and the way to its events."""

from __future__ import annotations

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from orders.models import Order, OrderChange, OrderLine, ProcessedEvent
from outbox.admin.readonly import ReadOnlyAdmin, ReadOnlyInline, utc
from outbox.envelope import rfc3339

__all__ = ["OrderAdmin", "ProcessedEventAdmin"]


class LineInline(ReadOnlyInline):
    """What was ordered; 100 lines at most."""

    model = OrderLine
    fields = ("product_id", "quantity", "price")


class ChangeInline(ReadOnlyInline):
    """What became of it, in order."""

    model = OrderChange
    verbose_name_plural = "history"
    fields = readonly_fields = (
        "from_status",
        "to_status",
        "reason",
        "actor",
        "moment",
        "events",
    )

    @admin.display(description="at")
    def moment(self, change: OrderChange) -> str:
        return rfc3339(change.at)

    @admin.display(description="events")
    def events(self, change: OrderChange) -> SafeString:
        """Each event leads to its row in the outbox."""
        outbox = reverse("admin:outbox_outboxevent_changelist")
        return format_html_join(
            SafeString("<br>"),
            '<a href="{}?q={}">{}</a>',
            ((outbox, event_id, event_id) for event_id in change.event_ids),
        )


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin):
    """Newest first."""

    id_field = "id"
    search_help_text = "Order id, whole"
    ordering = ("-created_at", "-id")  # index orders_newest
    list_display = ("id", "customer_id", "status", "total", utc("created_at"))
    fields = ("id", "customer_id", "status", "total", "created")
    inlines = (LineInline, ChangeInline)

    @admin.display(description="created at")
    def created(self, order: Order) -> str:
        return rfc3339(order.created_at)


@admin.register(ProcessedEvent)
class ProcessedEventAdmin(ReadOnlyAdmin):
    """Newest first."""

    id_field = "event_id"
    search_help_text = "Event id, whole"
    ordering = ("-id",)
    list_display = ("event_id", "user_id", "amount", utc("processed_at"))
