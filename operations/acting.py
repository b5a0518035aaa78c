"""The pages on which an operator acts: the preview of an action, the form that asks for a reason, the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import structlog
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from operations import relay_letters
from operations.action import RATES, Action, ActionRequest, NoSuch, NotNow, Preview
from operations.actions import ACTIONS
from operations.doors import of_actors, of_scripts, of_staff, refusal
from operations.letters import as_number, groups_of_apps, inspect, letter_groups
from operations.pages import LETTERS, RESOLVE, done_part, spans_of
from operations.viewers import Viewer
from operations.words import span
from outbox.database import operator_log
from outbox.database.operator_log import DoneAlready
from outbox.envelope import parse_id
from outbox.lanes.pause import COUNTED, lane_states

__all__ = [
    "act",
    "done",
    "done_live",
    "lanes",
    "letter",
    "letters",
    "of_relay",
    "relay_letter",
]

GROUPED = 10_000  # the newest dead letters that the page groups
ON_LENGTH = 100  # things that one form acts on
LANES = "outbox.change_outboxlane"

log = structlog.get_logger("operations")


@of_actors
def act(request: HttpRequest, viewer: Viewer, name: str) -> HttpResponse:
    """GET shows what an action would do. POST does it once for each form and redirects to the outcome."""
    action = ACTIONS.get(name)
    if action is None:
        return refusal(request, 404, f"There is no action {name}.")
    sent = request.POST if request.method == "POST" else request.GET
    on = [each.strip() for each in sent.getlist("on") if each.strip()][:ON_LENGTH]
    if not viewer.may(action.permission):
        return _may_not(request, action.permission)
    try:
        preview = action.preview(on)
    except (NoSuch, NotNow) as error:
        status = 404 if isinstance(error, NoSuch) else 503
        return _sent_before(request) or refusal(request, status, str(error))
    if preview.permission and not viewer.may(preview.permission):
        return _may_not(request, preview.permission)
    if request.method != "POST":
        return _form(request, name, action, preview, on=on)
    return _done(request, viewer, name, preview, on)


def _may_not(request: HttpRequest, permission: str) -> HttpResponse:
    return refusal(request, 403, f"You need the permission {permission}.")


def _done(
    request: HttpRequest, viewer: Viewer, name: str, preview: Preview, on: Sequence[str]
) -> HttpResponse:
    action = ACTIONS[name]
    why = operator_log.reason_in(request.POST.get("why", ""))
    rate = request.POST.get("rate", str(RATES[0]))
    once = parse_id(request.POST.get("once", ""))  # None: this server did not make the form
    if once is None:
        return _form(
            request,
            name,
            action,
            preview,
            on=on,
            problem="The form has no valid number. Send this one.",
        )
    if (before := _sent_before(request)) is not None:
        return before
    problem, status = "", 400
    if not why:
        problem = "Say why: the reason is kept with the action."
    elif preview.rates and rate not in map(str, preview.rates):
        problem = "Choose one of the rates."
    elif preview.nothing:
        problem, status = preview.nothing, 409
    else:
        asked = ActionRequest(on=on, by=viewer.name, why=why, once=once, rate=int(rate))
        try:
            action.do(asked)
        except NoSuch as error:
            return refusal(request, 404, str(error))
        except NotNow as error:
            problem, status = str(error), 409
        except DoneAlready:
            pass
    if problem:
        return _form(
            request,
            name,
            action,
            preview,
            on=on,
            why=why,
            once=once,
            problem=problem,
            status=status,
        )
    log.warning("operator_acted", action=name, on=list(on), by=viewer.name, why=why)
    found = operator_log.under(once)
    return _to(found) if found else HttpResponseRedirect(reverse("ops"))


def _sent_before(request: HttpRequest) -> HttpResponse | None:
    """The redirect of a form that was sent before, to what it did; None for a new form."""
    once = parse_id(request.POST.get("once", ""))  # of the form; None: it was not made here
    found = operator_log.under(once) if once else None
    return _to(found) if found is not None else None


def _to(entry_id: int) -> HttpResponse:
    return HttpResponseRedirect(reverse("ops-done", args=[entry_id]))


def _form(
    request: HttpRequest,
    name: str,
    action: Action,
    preview: Preview,
    *,
    on: Sequence[str],
    why: str = "",
    once: UUID | None = None,
    problem: str = "",
    status: int = 0,
) -> HttpResponse:
    context: dict[str, Any] = {
        "name": name,
        "action": action,
        "preview": preview,
        "on": on,
        "why": why,
        "once": once or uuid4(),
        "problem": problem,
    }
    return render(
        request, "operations/act.html", context, status=status or (400 if problem else 200)
    )


@of_staff
def done(request: HttpRequest, viewer: Viewer, entry_id: str) -> HttpResponse:
    """One action of an operator, and how far it is."""
    entry = _entry(entry_id)
    if entry is None:
        return refusal(request, 404, "There is no action with this number.")
    context = {"entry": entry, "live": done_part(entry, stops=viewer.may(RESOLVE))}
    return render(request, "operations/done.html", context)


def _entry(entry_id: str) -> operator_log.Entry | None:
    number = as_number(entry_id)
    return operator_log.entry(number) if number is not None else None


@of_scripts
def done_live(request: HttpRequest, viewer: Viewer, entry_id: str) -> HttpResponse:
    """The part of that page which the browser renews."""
    entry = _entry(entry_id)
    return HttpResponse(done_part(entry, stops=viewer.may(RESOLVE)) if entry else "")


@of_staff
def letters(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """The dead letters of handlers and of apps, grouped by handler and error."""
    if not viewer.may(LETTERS):
        return _may_not(request, LETTERS)
    context = {
        "groups": spans_of(letter_groups(GROUPED)),
        "of_apps": spans_of(groups_of_apps()),
        "grouped": GROUPED,
        "resolves": viewer.may(RESOLVE),
    }
    return render(request, "operations/letters.html", context)


@of_staff
def letter(request: HttpRequest, viewer: Viewer, letter_id: str) -> HttpResponse:
    """One whole dead letter, without its secrets."""
    if not viewer.may(LETTERS):
        return _may_not(request, LETTERS)
    number = as_number(letter_id)
    found = inspect(number) if number is not None else None
    if found is None:
        return refusal(request, 404, "There is no such dead letter.")
    context = {"letter": found, "resolves": viewer.may(RESOLVE)}
    return render(request, "operations/letter.html", context)


@of_staff
def of_relay(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Dead letters of the relay by reason, as RabbitMQ has them now."""
    if not viewer.may(LETTERS):
        return _may_not(request, LETTERS)
    context: dict[str, Any] = {"resolves": viewer.may(RESOLVE)}
    try:
        found = relay_letters.groups()
    except relay_letters.Unavailable as error:
        return render(
            request, "operations/relay_letters.html", context | {"away": str(error)}, status=503
        )
    context |= {
        "found": found,
        "groups": [(group, span(group.oldest)) for group in found.groups],
        "behind": found.waiting - found.looked_at,
    }
    return render(request, "operations/relay_letters.html", context)


@of_staff
def relay_letter(request: HttpRequest, viewer: Viewer, letter_id: str) -> HttpResponse:
    """One whole dead letter of the relay, without its secrets."""
    if not viewer.may(LETTERS):
        return _may_not(request, LETTERS)
    try:
        found = relay_letters.inspect(letter_id)
    except relay_letters.Unavailable as error:
        return refusal(request, 503, str(error))
    if found is None:
        return refusal(
            request,
            404,
            "The relay has no such dead letter among the first of its queue.",
        )
    context = {"letter": found, "resolves": viewer.may(RESOLVE)}
    return render(request, "operations/relay_letter.html", context)


@of_staff
def lanes(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """All lanes; an operator chooses some of them."""
    context = {"lanes": lane_states(), "counted": COUNTED, "acts": viewer.may(LANES)}
    return render(request, "operations/lanes.html", context)
