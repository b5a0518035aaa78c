"""The site: a login that was tried too often is answered 429 before the password is looked at."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from django.conf import settings
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from eventsite.web.admin import metrics
from eventsite.web.admin.login_limit import login_limit
from eventsite.web.gateway.callers import client_address

__all__ = ["Site"]

log = structlog.get_logger("eventsite.admin")


class Site(AdminSite):
    """Django's own but for the login."""

    site_title = site_header = "Event backbone"
    index_title = "What is stored, what waits, who has applied what"

    @method_decorator(never_cache)
    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The form; a POST takes a token of the address and one of the user."""
        if request.method != "POST":
            return super().login(request, extra_context)
        address, user = _address(request), request.POST.get("username", "")
        seconds = login_limit().take(address, user)
        if seconds:
            metrics.LOGINS.labels("refused").inc()
            log.warning("login_refused", address=address, seconds=seconds)
            context = {**self.each_context(request), "title": "Log in", "seconds": seconds}
            refusal = render(request, "eventsite/login_refused.html", context, status=429)
            refusal["Retry-After"] = str(seconds)
            return refusal
        answer = super().login(request, extra_context)
        # Not whether somebody is logged in: a user who is may try the passwords of others.
        accepted = answer.status_code == HTTPStatus.FOUND
        metrics.LOGINS.labels("accepted" if accepted else "failed").inc()
        if accepted:
            login_limit().forget_user(user)
        else:
            log.warning("login_failed", address=address)
        return answer


def _address(request: HttpRequest) -> str:
    """Of the client, as the gateway's limit knows it."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").encode("latin-1", "replace")
    return client_address(
        {"client": (request.META.get("REMOTE_ADDR", ""), 0)},
        {b"x-forwarded-for": forwarded} if forwarded else {},
        proxies=settings.TRUSTED_PROXIES,
    )
