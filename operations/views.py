"""/ops/: the page, its parts that are renewed, the same as JSON, and the login that needs no PostgreSQL."""

from __future__ import annotations

import structlog
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from operations import viewers
from operations.doors import glass, of_scripts, of_staff, unstored
from operations.journey import search
from operations.observer import observer
from operations.pages import LETTERS, as_json, charts_part, live_part, live_parts
from operations.viewers import Viewer
from restapi.answers import json_answer, to_response

__all__ = ["break_glass", "charts", "journey", "live", "page", "status"]

SEEN = "outbox.view_outboxevent"  # the permission for the search

log = structlog.get_logger("operations")


@of_staff
def page(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """The whole page. Viewers with the same permissions get the same parts."""
    snapshot, span = observer().look(), _span(request)
    context = {
        "viewer": viewer,
        "site": admin.site.site_header,
        **live_parts(snapshot, viewer.permissions),
        "charts": charts_part(snapshot, span),
        "span": span,
        "acts": viewer.acts,
        "searches": viewer.may(SEEN),
    }
    return render(request, "operations/page.html", context)


@of_scripts
def live(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """The parts of the page that are renewed."""
    return HttpResponse(live_part(observer().look(wait=0.0), viewer.permissions))


@of_scripts
def charts(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """The charts of the last hour, or with ?span=day of the last day."""
    return HttpResponse(charts_part(observer().look(wait=0.0), _span(request)))


def _span(request: HttpRequest) -> str:
    return "day" if request.GET.get("span") == "day" else "hour"


@of_scripts
def status(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """The same for scripts."""
    body = as_json(observer().look(), span=_span(request), letters=viewer.may(LETTERS))
    return to_response(json_answer(200, body))


@of_staff
def journey(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """The search for an id: every hop of its events, with times and errors."""
    viewer.needs(SEEN)
    wanted = request.GET.get("id", "").strip()[:300]
    context = {
        "wanted": wanted,
        "found": search(wanted) if wanted else None,
        "viewer": viewer,
        "reads_letters": viewer.may(LETTERS),
    }
    return render(request, "operations/journey.html", context)


@unstored
def break_glass(request: HttpRequest) -> HttpResponse:
    """Accepts the token of operators, with which this browser may read the page for an hour."""
    if request.method != "POST":
        return glass(request, status=200)
    if not viewers.is_token(request.POST.get("token", "")):
        log.warning("break_glass_refused")
        return glass(request, status=403, wrong=True)
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
    return answer
