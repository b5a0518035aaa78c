"""The admin's page of providers: how each stands, and the reset of a breaker by an operator."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from notifications.delivery.standing import UnknownProvider, reset_breaker, standings
from notifications.models import ProviderHold
from outbox.admin.readonly import ReadOnlyAdmin

__all__ = ["ProviderAdmin"]


@admin.register(ProviderHold)
class ProviderAdmin(ReadOnlyAdmin):
    """One page. The permission to view holds shows it; the permission to change them allows a
    reset."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.changelist_view)
        return [path("", view, name="notifications_providerhold_changelist")]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        may_reset = request.user.has_perm("notifications.change_providerhold")
        if request.method == "POST":
            if not may_reset:
                raise PermissionDenied
            self._reset(request)
            return HttpResponseRedirect(request.path)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": "Providers",
            "standings": standings(),
            "may_reset": may_reset,
        }
        return TemplateResponse(request, "admin/notifications/providers.html", context)

    def _reset(self, request: HttpRequest) -> None:
        provider, channel = request.POST.get("provider", ""), request.POST.get("channel", "")
        reason = request.POST.get("reason", "").strip()
        if not reason:
            messages.error(request, "Give a reason; it is kept with your name.")
            return
        try:
            stored = reset_breaker(
                provider, channel, who=request.user.get_username(), reason=reason[:200]
            )
        except UnknownProvider as error:
            messages.error(request, str(error))
            return
        if stored:
            messages.success(request, f"{provider} is called again for {channel}.")
        else:
            messages.error(
                request,
                "Redis is unavailable, so no worker got the reset. Try again when it answers.",
            )
