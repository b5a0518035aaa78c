"""Dead letters and handlers in the admin: what the commands do, with a preview before it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.db import OperationalError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from outbox import control, resolution
from outbox.admin.readonly import ReadOnlyAdmin, utc
from outbox.envelope import rfc3339
from outbox.models import DeadLetter, DeadLetterAction, HandlerControl
from outbox.resolution import DISCARD, REPLAY, FollowersWithoutHead, Selection

__all__ = ["DeadLetterAdmin", "HandlerControlAdmin"]

# Letters of one confirmation; more are resolved by the command, which can be interrupted.
LETTERS_AT_ONCE = 500
ERROR_SHOWN = 120


class _ConfirmedActions(ReadOnlyAdmin):
    """Read-only but for actions, each of which shows what it would do and asks first."""

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Who may change such rows may run the actions, and nothing else can be changed."""
        return request.user.has_perm(f"outbox.change_{self.opts.model_name}")

    def ask(
        self,
        request: HttpRequest,
        *,
        action: str,
        sentence: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        selected: Sequence[object],
        note_required: bool = False,
    ) -> HttpResponse:
        """The page of the preview; its button posts the same action again, confirmed."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{action.capitalize()}?",
            "back": request.get_full_path(),
            "sentence": sentence,
            "columns": columns,
            "rows": rows,
            "selected": selected,
            "action": action,
            "button": f"Yes, {action}",
            "note_label": "Reason:" if note_required else "Note, kept with it:",
            "note_required": note_required,
        }
        return TemplateResponse(request, "admin/outbox/confirm.html", context)


class OpenFilter(admin.SimpleListFilter):
    """The states that have an index: what nobody has resolved yet."""

    title = "open"
    parameter_name = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        states = (DeadLetter.State.DEAD, DeadLetter.State.RETRYING, DeadLetter.State.PARKED)
        return [(state.label, state.label) for state in states]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        states = {state.label: state for state in DeadLetter.State if state < 3}
        wanted = states.get(self.value() or "")
        return queryset if wanted is None else queryset.filter(state=wanted, state__lt=3)


@admin.register(DeadLetter)
class DeadLetterAdmin(_ConfirmedActions):
    """Newest first."""

    id_field = "event_id"
    search_help_text = "Event id, whole"
    ordering = ("-id",)
    list_filter = (OpenFilter,)
    actions = ("replay", "discard")
    list_display = (
        "id",
        "state",
        "handler",
        "topic",
        "key",
        "event_id",
        "attempts",
        "replay_count",
        "short_error",
        utc("created_at"),
        utc("next_attempt_at"),
    )
    fields = (
        ("id", "state", "handler", "event_id"),
        ("topic", "partition", "offset", "key"),
        ("attempts", "replay_count", "next_attempt_at"),
        ("created_at", "failed_at", "resolved_at", "resolved_by"),
        "error",
        "note",
        "history",
        ("type", "source", "event_time"),
        ("traceparent", "correlation_id"),
        "payload",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("payload")  # up to 1 MB each

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """A state is read along its own index."""
        return ("state", "-id") if request.GET.get(OpenFilter.parameter_name) else ("-id",)

    @admin.display(description="error")
    def short_error(self, letter: DeadLetter) -> str:
        return letter.error[:ERROR_SHOWN]

    @admin.display(description="history")
    def history(self, letter: DeadLetter) -> SafeString:
        actions = DeadLetterAction.objects.filter(letter=letter).order_by("id")[:100]
        rows = [(rfc3339(each.at), each.action, each.by, each.note) for each in actions]
        return format_html_join(SafeString("<br>"), "{} {} by {} {}", rows) or SafeString("none")

    @admin.action(description="Replay: try again now", permissions=["operate"])
    def replay(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        return self._resolve(request, queryset, REPLAY)

    @admin.action(description="Discard: never apply", permissions=["operate"])
    def discard(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        return self._resolve(request, queryset, DISCARD)

    def _resolve(
        self, request: HttpRequest, queryset: QuerySet[DeadLetter], action: str
    ) -> HttpResponse | None:
        ids = list(queryset.order_by("id").values_list("id", flat=True)[:LETTERS_AT_ONCE])
        wanted = Selection(ids=ids)
        try:
            if "confirmed" not in request.POST:
                return self._preview(request, wanted, action)
            outcomes = list(
                resolution.resolve_letters(
                    action,
                    wanted,
                    by=request.user.get_username(),
                    limit=LETTERS_AT_ONCE,
                    note=request.POST.get("note", "")[:500],
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

    def _preview(self, request: HttpRequest, wanted: Selection, action: str) -> HttpResponse | None:
        letters, beside = resolution.preview(wanted, limit=LETTERS_AT_ONCE)
        if not letters:
            messages.warning(request, "All of these are resolved already.")
            return None
        effect = {
            REPLAY: "are due at once, with all their tries",
            DISCARD: "are never applied",
        }[action]
        return self.ask(
            request,
            action=action,
            sentence=f"These {len(letters)} {effect}; {beside} followers go on after them.",
            columns=("id", "state", "handler", "topic", "key", "error"),
            rows=[
                (
                    letter.id,
                    letter.get_state_display(),
                    letter.handler,
                    letter.topic,
                    letter.key[:80],
                    letter.error[:ERROR_SHOWN],
                )
                for letter in letters
            ],
            selected=[letter.id for letter in letters],
        )


@admin.register(HandlerControl)
class HandlerControlAdmin(_ConfirmedActions):
    """One row a handler; sync_routes writes them."""

    ordering = ("handler",)
    actions = ("pause", "resume")
    list_display = ("handler", "standing", "reason", "changed_by", utc("changed_at"))

    @admin.display(description="standing")
    def standing(self, row: HandlerControl) -> str:
        return "paused" if row.paused else "running"

    @admin.action(description="Pause", permissions=["operate"])
    def pause(
        self, request: HttpRequest, queryset: QuerySet[HandlerControl]
    ) -> HttpResponse | None:
        """Needs a reason."""
        reason = request.POST.get("note", "").strip()[:500]
        if "confirmed" not in request.POST or not reason:
            return self._ask(
                request, queryset, "pause", "Nothing of these is applied until resumed."
            )
        for row in queryset:
            self._do(request, "paused", row.handler, reason)
        return None

    @admin.action(description="Resume", permissions=["operate"])
    def resume(
        self, request: HttpRequest, queryset: QuerySet[HandlerControl]
    ) -> HttpResponse | None:
        """Also after a circuit tripped."""
        if "confirmed" not in request.POST:
            sentence = "These go on where they stopped; what a circuit parked is tried again now."
            return self._ask(request, queryset, "resume", sentence)
        for row in queryset:
            self._do(request, "resumed", row.handler, "")
        return None

    def _do(self, request: HttpRequest, word: str, handler: str, reason: str) -> None:
        by = request.user.get_username()
        try:
            if word == "paused":
                control.pause_handler(handler, reason=reason, by=by)
            else:
                control.resume_handler(handler, by=by)
        except OperationalError as error:
            messages.error(request, f"{handler}: an effect holds its position, try again: {error}")
        else:
            messages.success(request, f"{handler} is {word}.")

    def _ask(
        self,
        request: HttpRequest,
        queryset: QuerySet[HandlerControl],
        action: str,
        sentence: str,
    ) -> HttpResponse:
        rows = list(queryset)
        return self.ask(
            request,
            action=action,
            sentence=sentence,
            columns=("handler", "standing", "reason"),
            rows=[(row.handler, self.standing(row), row.reason) for row in rows],
            selected=[row.handler for row in rows],
            note_required=action == "pause",
        )
