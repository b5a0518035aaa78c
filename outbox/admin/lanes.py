"""The lanes in the admin: what waits in them, and pausing them."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from outbox.admin.confirmed import ConfirmedActions, reason_of
from outbox.admin.readonly import PAUSED, clipped, utc
from outbox.lanes.pause import LaneBusy, pause_lanes, resume_lanes
from outbox.models import OutboxLane

__all__ = ["OutboxLaneAdmin"]


@admin.register(OutboxLane)
class OutboxLaneAdmin(ConfirmedActions):
    """Whoever may change lanes may pause and resume them; nothing else of a lane changes."""

    ordering = ("lane",)
    list_per_page = 64
    list_filter = ("paused",)
    list_display = ("lane", PAUSED, clipped("paused_reason"), "paused_by", utc("paused_at"))
    actions = ("pause", "resume")
    asked = {
        "lane": attrgetter("lane"),
        "standing": lambda lane: "paused" if lane.paused else "running",
        "reason": attrgetter("paused_reason"),
        "by": attrgetter("paused_by"),
    }

    @admin.action(description="Pause: no drain claims them", permissions=["operate"])
    def pause(self, request: HttpRequest, queryset: QuerySet[OutboxLane]) -> HttpResponse | None:
        sentence = (
            "No drain claims these lanes until they are resumed; their events wait, in order."
        )
        return self._change(request, queryset, "pause", pause_lanes, sentence)

    @admin.action(description="Resume", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[OutboxLane]) -> HttpResponse | None:
        sentence = "Drains claim these lanes again and send their waiting events, in order."
        return self._change(request, queryset, "resume", resume_lanes, sentence)

    def _change(
        self,
        request: HttpRequest,
        queryset: QuerySet[OutboxLane],
        action: str,
        change: Callable[..., Any],
        sentence: str,
    ) -> HttpResponse | None:
        lanes = list(queryset.order_by("lane"))
        reason = reason_of(request)
        if not reason:
            return self.ask(request, action, sentence, lanes)
        try:
            numbers = [each.lane for each in lanes]
            changed = change(numbers, reason=reason, by=request.user.get_username())
        except LaneBusy as error:
            messages.error(request, str(error))
        else:
            messages.success(
                request, f"{action.capitalize()}d lanes: {changed or 'none, nothing to change'}"
            )
        return None
