"""Pages of the notifications: each with its attempts, and actions that ask first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any
from uuid import UUID

import structlog
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from notifications import queries, services
from notifications.letters import EVERYBODY
from notifications.models import (
    WAITING,
    Attempt,
    Batch,
    ChannelControl,
    Notification,
    Status,
    Template,
)
from notifications.provider_page import ProviderAdmin
from outbox import operator_log
from outbox.admin.confirmed import ConfirmedActions, reason_of
from outbox.admin.readonly import (
    ReadOnlyAdmin,
    ReadOnlyInline,
    clipped,
    journey,
    masked_text,
    shorten,
    utc,
    whole_id,
)
from outbox.admin.search import WantedId, register_finder
from outbox.envelope import parse_id
from outbox.masking import masked

__all__ = ["BatchAdmin", "ChannelAdmin", "NotificationAdmin", "ProviderAdmin", "TemplateAdmin"]

AT_ONCE = 500  # notifications of one confirmation; a batch is cancelled whole
COUNTED = 10_000  # at most, of what was left out
INDEXED = tuple(each.value for each in Status if each != Status.DELIVERED)

log = structlog.get_logger("notifications")


@register_finder
def events_caused_by(text: str) -> tuple[Collection[UUID], str]:
    """The event of the notification with this id: it has the same id."""
    id_ = parse_id(text)
    found = id_ is not None and Notification.objects.filter(id=id_).exists()
    return ({id_} if found and id_ else set()), ""


class AttemptInline(ReadOnlyInline):
    """What was tried, in order."""

    model = Attempt
    ordering = ("number",)
    fields = readonly_fields = (
        "number",
        utc("at"),
        "provider",
        "outcome",
        "status_code",
        "latency_ms",
        masked_text("error"),
        utc("next_attempt_at"),
    )


class StatusFilter(admin.SimpleListFilter):
    """The statuses that have an index: all but delivered, which nearly all are."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(status, status) for status in INDEXED]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(status=self.value()) if self.value() in INDEXED else queryset


@admin.register(Notification)
class NotificationAdmin(ConfirmedActions):
    """Newest first."""

    search_help_text = "A whole id: of a notification or a batch; or a whole recipient"
    ordering = ("-id",)
    list_filter = (StatusFilter,)
    actions = ("cancel", "retry", "discard")
    inlines = (AttemptInline,)
    list_display = (
        whole_id("id"),
        "status",
        "channel",
        "priority",
        clipped("recipient"),
        "retry_count",
        clipped("error_message"),
        utc("created_at"),
    )
    asked = {
        "id": attrgetter("id"),
        "status": attrgetter("status"),
        "channel": attrgetter("channel"),
        "priority": attrgetter("priority"),
        "recipient": lambda row: shorten(row.recipient),
        "error": lambda row: shorten(masked(row.error_message or "")),
    }
    fields = (
        ("id", "status", "channel", "priority"),
        ("caller", "recipient", "batch"),
        "content",
        ("rendered", "template_id", "template_name", "template_variables"),
        ("created_at", "scheduled_at", "expires_at", "updated_at"),
        ("ready_at", "due_at", "waits_for", "attempt"),
        ("retry_count", "max_retries", "round"),
        ("sent_at", "failed_at", "discarded_at", "provider_message_id"),
        "error_message",
        ("idempotency_key", "traceparent", "correlation_id"),
        ("events", journey("id")),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("content", "template_variables")

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """A status is read along its own index."""
        status = request.GET.get(StatusFilter.parameter_name)
        return ("status", "-id") if status in INDEXED else ("-id",)

    def find(self, rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
        """By one of three indexes."""
        id_ = wanted.uuid
        if id_ is not None and Notification.objects.filter(id=id_).exists():
            return rows.filter(id=id_)
        if id_ is not None and Notification.objects.filter(batch_id=id_).exists():
            return rows.filter(batch_id=id_)
        return rows.filter(recipient=wanted.text)

    @admin.display(description="batch")
    def batch(self, row: Notification) -> str:
        if row.batch_id is None:
            return "-"
        page = reverse("admin:notifications_batch_change", args=[row.batch_id])
        return format_html('<a href="{}">{}</a>', page, row.batch_id)

    @admin.display(description="events")
    def events(self, row: Notification) -> SafeString:
        """Those of the outbox whose key it is."""
        outbox = reverse("admin:outbox_outboxevent_changelist")
        return format_html('<a href="{}?q={}">in the outbox</a>', outbox, row.id)

    @admin.action(description="Cancel: never send", permissions=["operate"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Notification]) -> HttpResponse | None:
        return self._act(request, queryset, "cancel", WAITING, "are not sent")

    @admin.action(description="Retry: send failed ones again", permissions=["operate"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Notification]) -> HttpResponse | None:
        return self._act(
            request, queryset, "retry", (Status.FAILED,), "are sent again, with fresh attempts"
        )

    @admin.action(description="Discard: failed ones stay failed", permissions=["operate"])
    def discard(
        self, request: HttpRequest, queryset: QuerySet[Notification]
    ) -> HttpResponse | None:
        return self._act(
            request, queryset, "discard", (Status.FAILED,), "stay failed and are listed no more"
        )

    def _act(
        self,
        request: HttpRequest,
        queryset: QuerySet[Notification],
        action: str,
        statuses: Sequence[Status],
        effect: str,
    ) -> HttpResponse | None:
        fit = queryset.filter(status__in=statuses).order_by("id")
        ids = list(fit.values_list("id", flat=True)[: COUNTED + 1])
        if not ids:
            messages.warning(request, f"None of the selected notifications can be {_DONE[action]}.")
            return None
        why = reason_of(request)
        if not why:
            return self._preview(request, fit, ids, action, effect)
        some = ids[:AT_ONCE]
        subject = f"notification {some[0]}" if len(some) == 1 else "notifications"
        by = request.user.get_username()
        with transaction.atomic():
            run = operator_log.begin(action, subject, by=by, why=why, asked=len(some))
            done = len(getattr(services, action)(some, owner=EVERYBODY))
            operator_log.add(run, done=done, skipped=len(some) - done)
            operator_log.end(run)
        log.info("notifications_resolved", action=action, count=done, by=by, note=why)
        messages.success(request, f"{done} {_DONE[action]}.")
        if skipped := len(some) - done:
            messages.warning(
                request, f"{skipped} were left as they are, because their status has changed."
            )
        return None

    def _preview(
        self,
        request: HttpRequest,
        fit: QuerySet[Notification],
        ids: Sequence[UUID],
        action: str,
        effect: str,
    ) -> HttpResponse:
        rows = list(fit[:AT_ONCE])
        sentence = f"These {len(rows)} {effect}."
        return self.ask(request, action, sentence, rows, left_out=_left_out(len(ids)))


_DONE = {"cancel": "cancelled", "retry": "sent again", "discard": "discarded"}


def _left_out(chosen: int) -> str:
    if chosen <= AT_ONCE:
        return ""
    more = chosen - AT_ONCE
    count = f"{more:,}" if chosen <= COUNTED else f"{COUNTED - AT_ONCE:,} or more"
    return f"{count} of the selected notifications are left out: one action takes at most {AT_ONCE}. Repeat it for them."


@admin.register(Batch)
class BatchAdmin(ConfirmedActions):
    """Newest first."""

    search_help_text = "A whole id of a batch"
    ordering = ("-id",)
    actions = ("cancel",)
    asked = {
        "id": attrgetter("id"),
        "caller": attrgetter("caller"),
        "notifications": attrgetter("total_count"),
    }
    list_display = (whole_id("id"), "caller", "total_count", utc("created_at"))
    fields = ("id", "caller", "total_count", "created_at", "counts", "notifications")

    @admin.display(description="now")
    def counts(self, batch: Batch) -> str:
        return queries.batch_in_words(batch.id, EVERYBODY) or "-"

    @admin.display(description="notifications")
    def notifications(self, batch: Batch) -> SafeString:
        page = reverse("admin:notifications_notification_changelist")
        return format_html('<a href="{}?q={}">all of it</a>', page, batch.id)

    @admin.action(description="Cancel what can still be cancelled", permissions=["operate"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Batch]) -> HttpResponse | None:
        batches = list(queryset.order_by("id")[:AT_ONCE])
        why = reason_of(request)
        if not why:
            sentence = "Notifications of these batches that are not being sent are cancelled."
            return self.ask(request, "cancel", sentence, batches)
        done, by = 0, request.user.get_username()
        for batch in batches:
            with transaction.atomic():
                cancelled = len(services.cancel_batch(batch.id, owner=EVERYBODY))
                operator_log.note("cancel", f"batch {batch.id}", by=by, why=why, done=cancelled)
            done += cancelled
        log.info("notifications_resolved", action="cancel", count=done, by=by, note=why)
        messages.success(request, f"{done} notifications cancelled.")
        return None


@admin.register(Template)
class TemplateAdmin(ReadOnlyAdmin):
    """By id; they are changed through the API, by those whose they are."""

    search_help_text = "A whole id"
    ordering = ("-id",)
    list_display = (whole_id("id"), clipped("name"), "channel", "caller", utc("updated_at"))
    fields = (("id", "name", "channel", "caller"), ("created_at", "updated_at"), "body")


@admin.register(ChannelControl)
class ChannelAdmin(ReadOnlyAdmin):
    """Those that were ever paused; the page of operators pauses and resumes them."""

    ordering = ("channel",)
    list_display = ("channel", "paused", clipped("reason"), "changed_by", utc("changed_at"))
    fields = ("channel", "paused", "reason", "changed_by", "changed_at")
