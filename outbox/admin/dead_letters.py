"""Dead letters and handlers in the admin: what the commands do, with a preview before it is done."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from django.contrib import admin, messages
from django.db import OperationalError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from outbox.admin.confirmed import ConfirmedActions, reason_of
from outbox.admin.readonly import clipped, journey, short_id, shorten, utc
from outbox.admin.search import WantedId, caused_by, look_back
from outbox.admin.tables import ANY_ID
from outbox.dead_letters import resolve
from outbox.dead_letters.resolve import DISCARD, REPLAY, FollowersWithoutHead, Selection
from outbox.envelope import rfc3339
from outbox.handlers.pause import pause_handler, resume_handler
from outbox.masking import masked
from outbox.models import DeadLetter, DeadLetterAction, HandlerControl

__all__ = ["DeadLetterAdmin", "HandlerControlAdmin"]

# Letters of one confirmation; more are resolved by the command, which can be interrupted.
LETTERS_AT_ONCE = 500
COUNTED = 10_000  # at most, of what was left out
FOLLOWERS_COUNTED = 10_000  # by resolution.preview
KEY_SHOWN = 80
ACTIONS_SHOWN = 100


class OpenFilter(admin.SimpleListFilter):
    """The states that have an index: what nobody has resolved yet."""

    title = "state"
    parameter_name = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        states = (DeadLetter.State.DEAD, DeadLetter.State.RETRYING, DeadLetter.State.PARKED)
        return [(state.label, state.label) for state in states]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        states = {state.label: state for state in DeadLetter.State if state < 3}
        wanted = states.get(self.value() or "")
        return queryset if wanted is None else queryset.filter(state=wanted, state__lt=3)


@admin.register(DeadLetter)
class DeadLetterAdmin(ConfirmedActions):
    """Newest first."""

    search_help_text = ANY_ID
    ordering = ("-id",)
    list_filter = (OpenFilter,)
    actions = ("replay", "discard")
    list_display = (
        "id",
        "standing",
        "handler",
        "topic",
        short_id("key"),
        short_id("event_id"),
        "attempts",
        clipped("error"),
        utc("created_at"),
    )
    fields = (
        ("id", "state", "handler", "event_id"),
        ("topic", "partition", "offset", "key"),
        ("attempts", "replay_count", "next_attempt_at"),
        ("created_at", "failed_at", "resolved_at", "resolved_by"),
        "error",
        "note",
        "history",
        journey("event_id"),
        ("type", "source", "event_time"),
        ("traceparent", "correlation_id"),
        "payload",
    )
    asked = {
        "id": attrgetter("id"),
        "state": lambda letter: letter.get_state_display(),
        "handler": attrgetter("handler"),
        "topic": attrgetter("topic"),
        "key": lambda letter: shorten(masked(letter.key), KEY_SHOWN),
        "error": lambda letter: shorten(masked(letter.error)),
    }

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("payload")  # up to 1 MB each

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """A state is read along its own index."""
        return ("state", "-id") if request.GET.get(OpenFilter.parameter_name) else ("-id",)

    def find(self, rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
        """Keys of foreign messages too, so it looks into the letters themselves, not the outbox."""
        event_id = wanted.uuid
        if event_id is not None and DeadLetter.objects.filter(event_id=event_id).exists():
            return rows.filter(event_id=event_id)
        of_events = DeadLetter.objects.filter(event_id__in=caused_by(wanted))
        ids = set(of_events.values_list("id", flat=True)[:COUNTED])
        ids.update(look_back(rows, wanted, "key", "correlation_id"))
        return rows.filter(id__in=ids)

    @admin.display(description="state")
    def standing(self, letter: DeadLetter) -> str:
        """The time is on one line, and only where there is one."""
        word = letter.get_state_display()
        if letter.state != DeadLetter.State.RETRYING or letter.next_attempt_at is None:
            return word
        return f"{word}, due {rfc3339(letter.next_attempt_at)[11:19]}Z"

    @admin.display(description="history")
    def history(self, letter: DeadLetter) -> SafeString:
        actions = DeadLetterAction.objects.filter(letter=letter).order_by("-id")
        newest = list(actions[: ACTIONS_SHOWN + 1])
        lines = [
            (f"{rfc3339(each.at)} {each.action} by {each.by} {each.note}",)
            for each in reversed(newest[:ACTIONS_SHOWN])
        ]
        if len(newest) > ACTIONS_SHOWN:
            lines.insert(0, (f"The newest {ACTIONS_SHOWN}; there are older ones.",))
        return format_html_join(SafeString("<br>"), "{}", lines) or SafeString("none")

    @admin.action(description="Replay: try again now", permissions=["operate"])
    def replay(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        return self._resolve(request, queryset, REPLAY)

    @admin.action(description="Discard: never apply", permissions=["operate"])
    def discard(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        return self._resolve(request, queryset, DISCARD)

    def _resolve(
        self, request: HttpRequest, queryset: QuerySet[DeadLetter], action: str
    ) -> HttpResponse | None:
        ids = list(queryset.order_by("id").values_list("id", flat=True)[: COUNTED + 1])
        wanted = Selection(ids=ids[:LETTERS_AT_ONCE])
        reason = reason_of(request)
        try:
            if not reason:
                return self._preview(request, wanted, action, len(ids))
            outcomes = list(
                resolve.resolve_letters(
                    action,
                    wanted,
                    by=request.user.get_username(),
                    limit=LETTERS_AT_ONCE,
                    note=reason,
                )
            )
        except FollowersWithoutHead as error:
            messages.error(request, str(error))
            return None
        done = sum(outcome.done for outcome in outcomes)
        messages.success(request, f"{done} {action}ed.")
        for outcome in outcomes:
            if not outcome.done:
                messages.warning(request, f"{outcome.letter.id}: {outcome.word}")
        return None

    def _preview(
        self, request: HttpRequest, wanted: Selection, action: str, chosen: int
    ) -> HttpResponse | None:
        letters, beside = resolve.preview(wanted, limit=LETTERS_AT_ONCE)
        left_out = _left_out(chosen, action)
        if not letters:
            words = f"All of these are resolved already. {left_out}"
            messages.warning(request, words.strip())
            return None
        effect = {
            REPLAY: "are due at once, with all their attempts",
            DISCARD: "are never applied",
        }[action]
        followers = f"{beside} or more" if beside == FOLLOWERS_COUNTED else str(beside)
        sentence = f"These {len(letters)} {effect}; {followers} followers are applied after them."
        return self.ask(request, action, sentence, letters, left_out=left_out)


def _left_out(chosen: int, action: str) -> str:
    """A sentence about the letters that were chosen beyond LETTERS_AT_ONCE; "" if there are none."""
    if chosen <= LETTERS_AT_ONCE:
        return ""
    more = chosen - LETTERS_AT_ONCE
    count = f"{more:,}" if chosen <= COUNTED else f"{COUNTED - LETTERS_AT_ONCE:,} or more"
    return (
        f"{count} of the selected letters are left out: one action takes at most {LETTERS_AT_ONCE}."
        f" Repeat it for them, or use `manage.py dead_letters {action}`."
    )


@admin.register(HandlerControl)
class HandlerControlAdmin(ConfirmedActions):
    """One row a handler; sync_routes writes them."""

    ordering = ("handler",)
    actions = ("pause", "resume")
    list_display = (
        "handler",
        "standing",
        clipped("reason"),
        "changed_by",
        utc("changed_at"),
        utc("parks_failures_until"),
    )

    @admin.display(description="standing")
    def standing(self, row: HandlerControl) -> str:
        return "paused" if row.paused else "running"

    asked = {
        "handler": attrgetter("handler"),
        "standing": lambda row: "paused" if row.paused else "running",
        "reason": attrgetter("reason"),
    }

    @admin.action(description="Pause", permissions=["operate"])
    def pause(
        self, request: HttpRequest, queryset: QuerySet[HandlerControl]
    ) -> HttpResponse | None:
        sentence = "These handlers apply nothing until they are resumed."
        return self._change(request, queryset, "pause", pause_handler, sentence)

    @admin.action(description="Resume", permissions=["operate"])
    def resume(
        self, request: HttpRequest, queryset: QuerySet[HandlerControl]
    ) -> HttpResponse | None:
        """Also after a circuit tripped."""
        sentence = (
            "These handlers continue where they stopped; what a circuit parked is tried again now."
        )
        return self._change(request, queryset, "resume", resume_handler, sentence)

    def _change(
        self,
        request: HttpRequest,
        queryset: QuerySet[HandlerControl],
        action: str,
        change: Callable[..., Any],
        sentence: str,
    ) -> HttpResponse | None:
        reason = reason_of(request)
        if not reason:
            return self.ask(request, action, sentence, list(queryset))
        for row in queryset:
            try:
                change(row.handler, reason=reason, by=request.user.get_username())
            except OperationalError as error:
                messages.error(
                    request,
                    f"{row.handler} was not changed: a running effect holds its position ({error}). Try again.",
                )
            else:
                messages.success(request, f"{row.handler} is {action}d.")
        return None
