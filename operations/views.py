"""/ops/: the page, the part of it that is renewed, the same as JSON, and the way in without PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import quote

import structlog
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from operations import viewers
from operations.journey import search
from operations.observer import observer
from operations.pages import PAUSE, as_json, live_part
from operations.viewers import MayNot, NotKnown, Unasked, Viewer, viewer_of
from restapi.answers import json_answer, to_response
from restapi.errors import RETRY_AFTER_SECONDS, reads_only

__all__ = ["break_glass", "journey", "live", "page", "status"]

# Nothing of the page is inline, and nothing comes from elsewhere.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SEEN = "outbox.view_outboxevent"  # who may see events may see where they are

log = structlog.get_logger("operations")
View = Callable[[HttpRequest, Viewer], HttpResponse]


def _of_staff(view: View) -> Callable[..., Any]:
    """A page: whoever is not known is sent to the login of the admin."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        try:
            answer = view(request, viewer_of(request))
        except NotKnown:
            login = f"{reverse('admin:login')}?next={quote(request.get_full_path())}"
            answer = HttpResponseRedirect(login)
        except MayNot:
            answer = _refusal(request, 403, "This page is for the staff.")
        except Unasked:
            answer = _glass(request, status=503)
        return _guarded(answer)

    return reads_only(guarded)


def _of_scripts(view: View) -> Callable[..., Any]:
    """JSON, or a part of the page: no redirects, and errors in the shape of the API's."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        try:
            answer = view(request, viewer_of(request))
        except NotKnown:
            answer = _error(401, "Log in at /admin/, or send the token of operators.")
        except MayNot:
            answer = _error(403, "This page is for the staff.")
        except Unasked:
            answer = _error(503, "PostgreSQL cannot say who you are; send the token of operators.")
            answer["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return _guarded(answer)

    return reads_only(guarded)


def _guarded(answer: HttpResponse) -> HttpResponse:
    answer["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    answer["Cache-Control"] = "no-store"
    return answer


def _error(status: int, message: str) -> HttpResponse:
    return to_response(json_answer(status, {"error": message, "details": []}))


def _refusal(request: HttpRequest, status: int, message: str) -> HttpResponse:
    return render(request, "operations/refused.html", {"message": message}, status=status)


@_of_staff
def page(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """All of it. Forms that act belong to the page, for they carry the viewer's token; the part that is
    renewed is the same for all."""
    context = {
        "viewer": viewer,
        "site": admin.site.site_header,
        "live": live_part(observer().look(), viewer.permissions),
        "acts": viewer.may(PAUSE),
        "searches": viewer.may(SEEN),
    }
    return render(request, "operations/page.html", context)


@_of_scripts
def live(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """The part that is renewed."""
    return HttpResponse(live_part(observer().look(wait=0.0), viewer.permissions))


@_of_scripts
def status(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """The same for scripts."""
    return to_response(json_answer(200, as_json(observer().look())))


@_of_staff
def journey(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Where an id is: every hop, with its time and its error."""
    if not viewer.may(SEEN):
        return _refusal(request, 403, "Events are for who may view them (outbox.view_outboxevent).")
    wanted = request.GET.get("id", "").strip()[:300]
    context = {"wanted": wanted, "found": search(wanted) if wanted else None, "viewer": viewer}
    return render(request, "operations/journey.html", context)


def break_glass(request: HttpRequest) -> HttpResponse:
    """Takes the token, and lets this browser read for an hour."""
    if request.method != "POST":
        return _guarded(_glass(request, status=200))
    if not viewers.is_token(request.POST.get("token", "")):
        log.warning("break_glass_refused")
        return _guarded(_glass(request, status=403, wrong=True))
    log.warning("break_glass_used")
    answer = HttpResponseRedirect(reverse("ops"))
    answer.set_cookie(
        viewers.COOKIE,
        viewers.cookie_for_token(),
        max_age=viewers.COOKIE_SECONDS,
        path="/ops/",
        httponly=True,
        secure=request.is_secure(),
        samesite="Strict",
    )
    return _guarded(answer)


def _glass(request: HttpRequest, *, status: int, wrong: bool = False) -> HttpResponse:
    context = {"wrong": wrong, "is_set": bool(settings.OPS_TOKEN), "away": status == 503}
    return render(request, "operations/glass.html", context, status=status)
