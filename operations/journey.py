"""The search for an id: it finds the journeys of all events that belong to the id.

The id may be one of an event, an order, a post or a notification, a key, a correlation id or an idempotency
key. A journey is the one of `manage.py event` (eventsite/reports), with the dead letters of its event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.conf import settings
from django.urls import resolve, reverse
from rest_framework.permissions import SAFE_METHODS

from apikeys.models import ApiKey
from eventsite.reports.journey import Journey, Stop, Travels, travels_of, travels_of_post
from feeds.queries import parse_post_id
from notifications import keys
from notifications.models import NotificationKey
from operations.relay_journey import RelayTrace, trace_of
from outbox.admin.search import WantedId, events_of
from outbox.database.ask import rows_of
from outbox.envelope import parse_id
from outbox.masking import masked
from outbox.models import DeadLetter
from restapi import idempotency
from restapi.context import caller
from restapi.models import IdempotencyRow

__all__ = ["Found", "JourneyView", "search"]

JOURNEYS = 20  # shown for one search
CALLERS = 200  # at most so many callers are tried with an idempotency key
IDS_OF_ANSWER = 5
ANSWERS = 2_000
HASHES = 100_000  # tried at most
_ANSWERS = """
    SELECT id, CASE WHEN octet_length(body) <= 4096 THEN body END
    FROM idempotency_keys ORDER BY created_at DESC LIMIT %s
"""
GOOD = frozenset({"committed", "published", "applied", "accepted", "ready", "delivered"})
_PARAMETER = re.compile("<[^>]+>")
WAITS = frozenset({"waiting", "scheduled", "processing", "under way", "caches to confirm"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JourneyView:
    """A journey: its stops, each with its colour, and the dead letters of its event, without secrets."""

    journey: Journey
    stops: Sequence[tuple[Stop, str]]
    letters: Sequence[DeadLetter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What belongs to an id. `page`: its page in the admin; `notes`: what the search left out; `slices`: what
    a fan-out has still to write; `relay`: the stops of a message of the relay, each with its colour."""

    what: str
    journeys: Sequence[JourneyView]
    slices: Sequence[Stop] = ()
    let_go: Sequence[UUID] = ()
    notes: Sequence[str] = ()
    page: str = ""
    relay: Sequence[tuple[Stop, str]] = ()
    relay_letters: Sequence[str] = ()


def search(text: str, *, answers: int = ANSWERS) -> Found:
    """Everything that belongs to an id. Each query has a bound; `answers`: the newest, whose paths with an id are
    tried with a key."""
    if "\0" in text:  # PostgreSQL refuses a text with this character
        return Found(what="Nothing has this id.", journeys=())
    if travels := _travels(text):
        return _found(travels)
    for other in _under_idempotency_key(text):
        if travels := _travels(other):
            return _of_key(travels)
    found = _events_of(text)
    return found if found.journeys else _elsewhere(text, found, answers)


def _of_key(travels: Travels) -> Found:
    found = _found(travels)
    return replace(found, what=f"Idempotency key of: {found.what}")


def _elsewhere(text: str, nothing: Found, answers: int) -> Found:
    """Where a look costs more, for what no row of PostgreSQL has as its id."""
    travels, stopped = _under_key_with_id(text, answers)
    if travels:
        return _of_key(travels)
    trace = trace_of(text)
    notes = [*nothing.notes, *stopped, *trace.notes]
    return _of_relay(text, trace, notes) if trace.stops else replace(nothing, notes=notes)


def _of_relay(text: str, trace: RelayTrace, notes: Sequence[str]) -> Found:
    return Found(
        what=f"message {text} of the relay",
        journeys=(),
        notes=notes,
        relay=[(stop, _colour(stop.state)) for stop in trace.stops],
        relay_letters=[letter.id for letter in trace.letters],
    )


def _travels(text: str) -> Travels | None:
    post_id, id_ = parse_post_id(text), parse_id(text)
    if post_id:
        return travels_of_post(post_id)
    return travels_of(id_) if id_ else None


def _found(travels: Travels) -> Found:
    count = len(travels.journeys) + len(travels.let_go)
    what, page = "events that are done", ""
    if travels.order_id:
        what = f"order {travels.order_id}, {count} events"
        page = reverse("admin:orders_order_change", args=[travels.order_id])
    elif travels.post_id:
        what = f"post {travels.post_id}, {count} events"
        page = reverse("admin:feeds_post_change", args=[travels.post_id])
    elif travels.notification_id:
        what = travels.journeys[0].type
        page = reverse("admin:notifications_notification_change", args=[travels.notification_id])
    elif travels.journeys:
        what = travels.journeys[0].type
    return Found(
        what=what,
        journeys=_views(travels.journeys),
        slices=travels.slices,
        let_go=travels.let_go,
        page=page,
    )


def _events_of(text: str) -> Found:
    """The events that the apps know by this id, and the newest events that have it as key or correlation id."""
    wanted = WantedId.parse(text)
    ids = sorted(events_of(wanted), reverse=True)
    journeys: list[Journey] = []
    for id_ in ids[:JOURNEYS]:
        if travels := travels_of(id_):
            journeys += travels.journeys
    notes = [_plain(note) for note in wanted.notes]
    if len(ids) > JOURNEYS:
        notes.append(f"{len(ids)} events have it: these are the newest {JOURNEYS}.")
    what = f"{len(ids)} events" if journeys else "Nothing has this id."
    return Found(what=what, journeys=_views(journeys), notes=notes)


def _plain(note: str) -> str:
    """The note without the link, which is for the lists of the admin."""
    return str(note).partition(' <a href="')[0]


def _under_idempotency_key(text: str) -> Iterator[str]:
    """Ids in the answer that is kept under such a key, of any caller and path without parameters. A key is
    kept as a hash, so each is tried; all of them by primary key."""
    callers = _callers()
    endpoints = [
        f"POST /{path.pattern}" for path in settings.WIRING.paths if "<" not in path.pattern
    ]
    ids = [
        idempotency.id_of(text, caller=name, endpoint=endpoint)
        for name in callers
        for endpoint in endpoints
    ]
    for row in IdempotencyRow.objects.filter(id__in=ids)[:IDS_OF_ANSWER]:
        yield from _ids_in(_json(row.body))
    ids = [keys.id_of(text, caller=name) for name in callers]
    for kept in NotificationKey.objects.filter(id__in=ids)[:IDS_OF_ANSWER]:
        yield str(kept.notification_id)


def _callers() -> list[str]:
    names = ApiKey.objects.order_by("name").values_list("name", flat=True).distinct()
    return [caller(), *names[:CALLERS]]


def _under_key_with_id(text: str, answers: int) -> tuple[Travels | None, Sequence[str]]:
    """The same of paths with an id in them, as of a payment, and where it stopped. The id belongs to what is
    hashed, and the answer that is kept has it: so the newest answers are tried."""
    callers, endpoints, tried = _callers(), _endpoints_with_id(), 0
    for number, (kept, body) in enumerate(rows_of(_ANSWERS, (answers,)), start=1):
        for id_ in _ids_in(_json(body)):
            hashes = {
                idempotency.id_of(text, caller=name, endpoint=_PARAMETER.sub(id_, endpoint))
                for endpoint in endpoints
                for name in callers
            }
            tried += len(hashes)
            if kept.hex in hashes:
                return _travels(id_), ()
        if tried >= HASHES or number == answers:
            return None, [
                f"As the Idempotency-Key of a path with an id it was looked for in the newest {number:,} answers."
            ]
    return None, ()


def _endpoints_with_id() -> list[str]:
    """Method and pattern of each endpoint that changes something and has one id in its path."""
    endpoints = []
    for path in settings.WIRING.paths:
        if path.write and path.pattern.count("<") == 1:
            view: Any = resolve(f"/{_PARAMETER.sub('0', path.pattern)}").func
            endpoints += [
                f"{method.upper()} /{path.pattern}"
                for method in view.cls.http_method_names
                if hasattr(view.cls, method) and method.upper() not in SAFE_METHODS
            ]
    return endpoints


def _json(body: bytes | memoryview | None) -> Any:
    with suppress(ValueError):
        return json.loads(bytes(body)) if body is not None else None
    return None


def _ids_in(answer: Any) -> list[str]:
    """The first values of an answer that may be ids."""
    values = answer.values() if isinstance(answer, dict) else ()
    texts = [str(value) for value in values if isinstance(value, str | int)]
    return [text for text in texts if parse_id(text) or parse_post_id(text)][:IDS_OF_ANSWER]


def _views(journeys: Sequence[Journey]) -> list[JourneyView]:
    letters: dict[UUID, list[DeadLetter]] = {}
    rows = DeadLetter.objects.filter(event_id__in=[each.event_id for each in journeys])
    for row in rows.defer("payload").order_by("id")[: 10 * JOURNEYS]:
        row.error = masked(row.error)
        letters.setdefault(row.event_id, []).append(row)
    return [
        JourneyView(
            journey=each,
            stops=[
                (replace(stop, detail=masked(stop.detail)), _colour(stop.state))
                for stop in each.stops
            ],
            letters=letters.get(each.event_id, ()),
        )
        for each in journeys
    ]


def _colour(state: str) -> str:
    if state in GOOD:
        return "green"
    return "grey" if state in WAITS else "red"
