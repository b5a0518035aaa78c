"""The admin's search: by a whole id, at a bounded cost whatever the tables hold.

Apps register finders of the events that their own ids have caused. Keys and correlation ids have no
index, which each event would pay for twice: they are looked for in the newest rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils.html import format_html

from outbox.envelope import parse_id
from outbox.models import OutboxEvent

__all__ = [
    "ROWS_SEARCHED",
    "WantedId",
    "events_of",
    "keys_of_events",
    "look_back",
    "of_events",
    "register_finder",
]

ROWS_SEARCHED = 100_000  # for a key or a correlation id, newest first
ROWS_FOUND = 1_000  # at most, of one search
_GO_ON = re.compile(r"(.+?)\s+before:(\d{1,18})", re.DOTALL)

# The events that an id of the app's own has caused, and what was left out, as a sentence or "".
Finder = Callable[[str], tuple[Collection[UUID], str]]
_finders: list[Finder] = []


def register_finder(finder: Finder) -> Finder:
    """Let the lists of events be searched by ids of an app; a decorator."""
    _finders.append(finder)
    return finder


@dataclass(slots=True)
class WantedId:
    """What a person searches for. `before`: only rows with a smaller number, where there is no
    index; `notes`: what was not looked at, for the page to say."""

    text: str
    before: int | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, term: str) -> Self:
        """An id, or an id and where to go on: `abc before:12345`."""
        found = _GO_ON.fullmatch(term.strip())
        return cls(found[1], int(found[2])) if found else cls(term.strip())

    @property
    def uuid(self) -> UUID | None:
        return parse_id(self.text)


def keys_of_events(wanted: WantedId) -> list[str]:
    rows = OutboxEvent.objects.filter(event_id__in=events_of(wanted))
    return list(rows.values_list("key", flat=True))


def of_events(rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
    """The rows whose `event_id` is that of an event with this id, order, customer, key or
    correlation id. The rows' table has an index that begins with event_id."""
    event_id = wanted.uuid
    if event_id is not None and _all(rows).filter(event_id=event_id).exists():
        return rows.filter(event_id=event_id)
    return rows.filter(event_id__in=events_of(wanted))


def events_of(wanted: WantedId) -> set[UUID]:
    """The events that the finders know, and those of the outbox with this key or correlation id."""
    found = caused_by(wanted)
    if wanted.uuid is not None:
        found.add(wanted.uuid)
        if OutboxEvent.objects.filter(event_id=wanted.uuid).exists():
            return found
    numbers = look_back(OutboxEvent.objects.all(), wanted, "key", "correlation_id")
    found.update(OutboxEvent.objects.filter(id__in=numbers).values_list("event_id", flat=True))
    return found


def caused_by(wanted: WantedId) -> set[UUID]:
    """What the apps say."""
    found: set[UUID] = set()
    for finder in _finders:
        events, left_out = finder(wanted.text)
        found.update(events)
        if left_out:
            wanted.notes.append(left_out)
    return found


def look_back(rows: QuerySet[Any], wanted: WantedId, *fields: str) -> list[int]:
    """Numbers of the newest rows in which one of these fields is the wanted text; reads
    ROWS_SEARCHED rows at most, and notes where it stopped."""
    rows = _all(rows).order_by("-id")
    if wanted.before is not None:
        rows = rows.filter(id__lt=wanted.before)
    numbers = rows.values_list("id", flat=True)
    last: int | None = numbers[ROWS_SEARCHED - 1 : ROWS_SEARCHED].first()
    if last is not None:
        numbers = numbers.filter(id__gte=last)
        wanted.notes.append(
            format_html(
                "Keys and correlation ids were looked for in {} {}, down to number {}. "
                '<a href="?{}">Look in older ones.</a>',
                f"{ROWS_SEARCHED:,}",
                rows.model._meta.verbose_name_plural,
                last,
                urlencode({"q": f"{wanted.text} before:{last}"}),
            )
        )
    matches = Q()
    for name in fields:
        matches |= Q(**{name: wanted.text})
    found = list(numbers.filter(matches)[: ROWS_FOUND + 1])
    if len(found) > ROWS_FOUND:
        wanted.notes.append(f"More than {ROWS_FOUND:,} rows have it: these are the newest.")
    return found[:ROWS_FOUND]


def _all(rows: QuerySet[Any]) -> QuerySet[Any]:
    """The same table without the list's filters, so that its indexes answer."""
    everything: QuerySet[Any] = rows.model._default_manager.all()
    return everything
