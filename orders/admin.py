"""Pages of the orders: each with its lines and its history, and the way to its events."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.utils.safestring import SafeString

from orders import queries
from orders.models import Order, OrderChange, OrderLine, ProcessedEvent
from outbox.admin.readonly import (
    ReadOnlyAdmin,
    ReadOnlyInline,
    clipped,
    journey,
    outbox_links,
    utc,
    whole_id,
)
from outbox.admin.search import (
    WantedId,
    keys_of_events,
    of_events,
    register_finder,
)
from outbox.admin.tables import ANY_ID
from outbox.envelope import parse_id

__all__ = ["OrderAdmin", "ProcessedEventAdmin"]


ORDERS_OF_CUSTOMER = 100


@register_finder
def events_caused_by(text: str) -> tuple[Collection[UUID], str]:
    """The events of the order with this id, and those of the customer's newest orders."""
    order_id = parse_id(text)
    events = set(queries.event_ids_of(order_id) or () if order_id else ())
    theirs, more = queries.events_of_customer(text, orders=ORDERS_OF_CUSTOMER)
    left_out = f"Of this customer, only the events of the newest {ORDERS_OF_CUSTOMER} orders."
    return events.union(theirs), left_out if more else ""


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
        utc("at"),
        "events",
    )

    @admin.display(description="events")
    def events(self, change: OrderChange) -> SafeString:
        return outbox_links(change.event_ids)


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin):
    """Newest first."""

    search_help_text = ANY_ID
    ordering = ("-created_at", "-id")  # index orders_newest
    list_display = (whole_id("id"), clipped("customer_id"), "status", "total", utc("created_at"))
    fields = ("id", "customer_id", "status", "total", "created_at", journey("id"))
    inlines = (LineInline, ChangeInline)

    def find(self, rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
        """An order, the order of an event, or all orders of a customer. Order ids are the keys of
        the outbox."""
        if (order_id := wanted.uuid) and Order.objects.filter(pk=order_id).exists():
            return rows.filter(pk=order_id)
        if Order.objects.filter(customer_id=wanted.text).exists():
            return rows.filter(customer_id=wanted.text)  # index orders_of_customer
        keys = keys_of_events(wanted)
        return rows.filter(pk__in=[each for key in keys if (each := parse_id(key))])


@admin.register(ProcessedEvent)
class ProcessedEventAdmin(ReadOnlyAdmin):
    """Newest first."""

    search_help_text = ANY_ID
    ordering = ("-id",)
    list_display = (whole_id("event_id"), clipped("user_id"), "amount", utc("processed_at"))

    def find(self, rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
        return of_events(rows, wanted)
