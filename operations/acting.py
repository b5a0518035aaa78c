"""The pages on which an operator acts: the preview of an action, the form that asks for a reason, the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import structlog
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from operations import relay_letters
from operations.action import RATES, Action, ActionRequest, NoSuch, NotNow, Preview, existing
from operations.doors import of_actors, of_scripts, of_staff
from operations.letter_actions import LETTER_ACTIONS, NO_LETTER, NO_RELAY_LETTER
from operations.letters import as_number, groups_of_apps, inspect, letter_groups
from operations.pages import LETTERS, RESOLVE, done_part
from operations.relay_letters import Unavailable
from operations.switches import SWITCHES
from operations.viewers import Viewer
from outbox import operator_log
from outbox.envelope import parse_id
from outbox.lanes.pause import COUNTED, lane_states
from outbox.models import OperatorAction
from outbox.operator_log import DoneAlready

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
# The path of an address names the action, its query names what the action acts on. A preview only reads.
ACTIONS: Mapping[str, Action] = {**SWITCHES, **LETTER_ACTIONS}

log = structlog.get_logger("operations")


@of_actors
def act(request: HttpRequest, viewer: Viewer, name: str) -> HttpResponse:
    """GET shows what an action would do. POST does it once for each form and redirects to the outcome."""
    action = existing(ACTIONS.get(name), f"There is no action {name}.")
    sent = request.POST if request.method == "POST" else request.GET
    on = [each.strip() for each in sent.getlist("on") if each.strip()][:ON_LENGTH]
    viewer.needs(action.permission)
    try:
        preview = action.preview(on)
    except (NoSuch, NotNow, Unavailable):
        if (before := _sent_before(request)) is None:
            raise
        return before
    if preview.permission:
        viewer.needs(preview.permission)
    if request.method != "POST":
        return _form(request, name, preview, on=on)
    return _done(request, viewer, name, preview, on)


def _done(
    request: HttpRequest, viewer: Viewer, name: str, preview: Preview, on: Sequence[str]
) -> HttpResponse:
    why = operator_log.reason_in(request.POST.get("why", ""))
    rate = request.POST.get("rate", str(RATES[0]))
    once = parse_id(request.POST.get("once", ""))  # None: this server did not make the form
    if once is None:
        problem = "The form was incomplete. Send this new one."
        return _form(request, name, preview, on=on, problem=problem)
    if (before := _sent_before(request)) is not None:
        return before
    problem, status = "", 400
    if not why:
        problem = "Say why: the reason is kept with the action."
    elif rate not in map(str, preview.rates or RATES):
        problem = "Choose one of the rates."
    elif preview.nothing:
        problem, status = preview.nothing, 409
    else:
        asked = ActionRequest(on=on, by=viewer.name, why=why, once=once, rate=int(rate))
        try:
            ACTIONS[name].do(asked)
        except (NotNow, Unavailable) as error:
            problem, status = str(error), 409
        except DoneAlready:
            pass
    if problem:
        return _form(
            request, name, preview, on=on, why=why, once=once, problem=problem, status=status
        )
    log.warning("operator_acted", action=name, on=list(on), by=viewer.name, why=why)
    return _sent_before(request) or HttpResponseRedirect(reverse("ops"))


def _sent_before(request: HttpRequest) -> HttpResponse | None:
    """The redirect of a form that was sent before, to what it did; None for a new form."""
    once = parse_id(request.POST.get("once", ""))  # of the form; None: it was not made here
    found = operator_log.under(once) if once else None
    return HttpResponseRedirect(reverse("ops-done", args=[found])) if found is not None else None


def _form(
    request: HttpRequest,
    name: str,
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
        "action": ACTIONS[name],
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
    entry = existing(_entry(entry_id), "There is no action with this number.")
    context = {"entry": entry, "live": done_part(entry, stops=viewer.may(RESOLVE))}
    return render(request, "operations/done.html", context)


def _entry(entry_id: str) -> OperatorAction | None:
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
    viewer.needs(LETTERS)
    context = {
        "groups": letter_groups(GROUPED),
        "of_apps": groups_of_apps(),
        "grouped": GROUPED,
        "resolves": viewer.may(RESOLVE),
    }
    return render(request, "operations/letters.html", context)


@of_staff
def letter(request: HttpRequest, viewer: Viewer, letter_id: str) -> HttpResponse:
    """One whole dead letter, without its secrets."""
    viewer.needs(LETTERS)
    number = as_number(letter_id)
    found = inspect(number) if number is not None else None
    context = {"letter": existing(found, NO_LETTER), "resolves": viewer.may(RESOLVE)}
    return render(request, "operations/letter.html", context)


@of_staff
def of_relay(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Dead letters of the relay by reason, as RabbitMQ has them now."""
    viewer.needs(LETTERS)
    context: dict[str, Any] = {"resolves": viewer.may(RESOLVE)}
    try:
        found = relay_letters.groups()
    except Unavailable as error:
        return render(
            request, "operations/relay_letters.html", context | {"away": str(error)}, status=503
        )
    context |= {"found": found, "behind": found.waiting - found.looked_at}
    return render(request, "operations/relay_letters.html", context)


@of_staff
def relay_letter(request: HttpRequest, viewer: Viewer, letter_id: str) -> HttpResponse:
    """One whole dead letter of the relay, without its secrets."""
    viewer.needs(LETTERS)
    found = existing(relay_letters.inspect(letter_id), NO_RELAY_LETTER)
    context = {"letter": found, "resolves": viewer.may(RESOLVE)}
    return render(request, "operations/relay_letter.html", context)


@of_staff
def lanes(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """All lanes; an operator chooses some of them."""
    context = {"lanes": lane_states(), "counted": COUNTED, "acts": viewer.may(LANES)}
    return render(request, "operations/lanes.html", context)
