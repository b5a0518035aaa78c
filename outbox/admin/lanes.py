"""The lanes in the admin: what waits in them, and pausing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.db.models import QuerySet
from django.http import HttpRequest

from outbox.admin.readonly import ReadOnlyAdmin, clipped, utc
from outbox.lanes.pause import LaneBusy, pause_lanes, resume_lanes
from outbox.models import OutboxLane

__all__ = ["OutboxLaneAdmin"]


class ReasonForm(ActionForm):
    """The action, and why."""

    reason = forms.CharField(required=False, max_length=200)


@admin.register(OutboxLane)
class OutboxLaneAdmin(ReadOnlyAdmin):
    """Whoever may change lanes may pause and resume them; nothing else of a lane changes."""

    ordering = ("lane",)
    list_per_page = 64
    list_filter = ("paused",)
    list_display = ("lane", "standing", clipped("paused_reason"), "paused_by", utc("paused_at"))
    actions = ("pause", "resume")
    action_form = ReasonForm

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """What the actions ask for: changing rows by form is refused to everyone."""
        return request.user.has_perm("outbox.change_outboxlane")

    @admin.display(description="paused", empty_value="-")
    def standing(self, lane: OutboxLane) -> str | None:
        """A word, because Django's icon for False is a red cross."""
        return "paused" if lane.paused else None

    @admin.action(description="Pause: no drain claims them", permissions=["operate"])
    def pause(self, request: HttpRequest, queryset: QuerySet[OutboxLane]) -> None:
        reason = request.POST.get("reason", "")
        by = request.user.get_username()
        self._change(
            request,
            "Paused",
            queryset,
            lambda numbers: pause_lanes(numbers, reason=reason, by=by),
        )

    @admin.action(description="Resume", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[OutboxLane]) -> None:
        reason, by = request.POST.get("reason", ""), request.user.get_username()
        self._change(
            request,
            "Resumed",
            queryset,
            lambda numbers: resume_lanes(numbers, reason=reason, by=by),
        )

    def _change(
        self,
        request: HttpRequest,
        word: str,
        queryset: QuerySet[Any],
        change: Callable[[list[int]], list[int]],
    ) -> None:
        numbers = sorted(queryset.values_list("lane", flat=True))
        try:
            changed = change(numbers)
        except LaneBusy as error:
            messages.error(request, str(error))
        else:
            messages.success(request, f"{word} lanes: {changed or 'none, nothing to change'}")
