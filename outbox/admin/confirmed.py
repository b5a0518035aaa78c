"""Admin actions that show what they would do, and ask first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from outbox import operator_log
from outbox.admin.readonly import ReadOnlyAdmin

__all__ = ["ConfirmedActions", "reason_of"]


def reason_of(request: HttpRequest) -> str:
    """The reason of an action that was confirmed. Empty: it was not confirmed, or it has no reason; then the
    preview is shown."""
    return (
        operator_log.reason_in(request.POST.get("note", "")) if "confirmed" in request.POST else ""
    )


class ConfirmedActions(ReadOnlyAdmin):
    """Read-only but for actions, each of which shows what it would do and asks for a reason first."""

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Who may change such rows may run the actions, and nothing else can be changed."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")

    # What the preview shows of each row: column -> its value.
    asked: Mapping[str, Callable[[Any], object]]

    def ask(
        self,
        request: HttpRequest,
        action: str,
        sentence: str,
        rows: Sequence[Model],
        *,
        left_out: str = "",
    ) -> HttpResponse:
        """The page of the preview; its button posts the same action again, confirmed."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{action.capitalize()}?",
            "back": request.get_full_path(),
            "media": self.media,
            "sentence": sentence,
            "left_out": left_out,
            "columns": list(self.asked),
            "rows": [[shown(row) for shown in self.asked.values()] for row in rows],
            "selected": [row.pk for row in rows],
            "action": action,
            "button": f"Yes, {action}",
        }
        return TemplateResponse(request, "admin/outbox/confirm.html", context)
