"""The snapshot as JSON, and as the HTML parts that the page renews."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from django.template.loader import render_to_string
from django.urls import reverse

from eventsite.rollout import Version
from operations import words
from operations.charts import Picture, draw
from operations.judge import Alert, Station
from operations.past import Past
from operations.running import ProcessRow
from operations.snapshot import Snapshot
from outbox.envelope import rfc3339
from outbox.models import OperatorAction
from outbox.watching import Hop

__all__ = [
    "LETTERS",
    "RESOLVE",
    "as_json",
    "cards",
    "charts_part",
    "done_part",
    "live_part",
    "live_parts",
    "picture_of",
    "progress",
    "share",
    "what_it_is",
]

# The permissions that change what the page shows; viewers with the same ones see the same page.
PERMISSIONS = (PAUSE, LANES, BREAKERS, CHANNELS, LETTERS, RESOLVE) = (
    "outbox.change_handlercontrol",
    "outbox.change_outboxlane",
    "notifications.change_providerhold",
    "notifications.change_channelcontrol",
    "outbox.view_deadletter",
    "outbox.change_deadletter",
)


def as_json(snapshot: Snapshot, *, span: str = "hour", letters: bool) -> dict[str, Any]:
    """What /ops/status.json and `ops status --json` say. Times in seconds; null: not known. `span`: of the
    charts; `letters`: errors of dead letters may be seen, else there is null."""
    return {
        "at": rfc3339(snapshot.at),
        "asOf": rfc3339(snapshot.as_of) if snapshot.as_of else None,
        "state": snapshot.state,
        "sentence": snapshot.sentence,
        "alarms": [_alert(alert) for alert in snapshot.alerts],
        "servers": [
            _named(each, "name", "state", "age", "reason", "facts") for each in snapshot.servers
        ],
        "hops": [_station(station) for station in snapshot.stations],
        "timeLeft": [
            _named(each, "name", "state", "left", "standing", "ends", "age", "reason")
            for each in snapshot.deadlines
        ],
        "deadLetters": [
            {"error": each.shown, **_named(each, "handler", "letters", "oldest", "like")}
            for each in snapshot.letters
        ]
        if letters
        else None,
        "actions": [_action(entry) for entry in snapshot.actions],
        "past": _past(picture_of(snapshot, span)),
        "read": {
            part: _named(news, "state", "age", "reason")
            for part, news in (
                ("deadLetters", snapshot.stored),
                ("actions", snapshot.stored),
                ("past", snapshot.charted),
            )
        },
        "processes": [_process(row) for row in snapshot.processes],
        "versions": [_named(each, "release", "build") for each in snapshot.versions],
        "unread": [
            {"name": each.app, **_named(each, "state", "reason")} for each in snapshot.unread
        ],
    }


def _number(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else round(value, 3)


def _named(thing: object, *names: str) -> dict[str, Any]:
    """What is called in JSON as it is here."""
    values = {name: getattr(thing, name) for name in names}
    return {
        name: _number(value) if isinstance(value, float) else value
        for name, value in values.items()
    }


def _alert(alert: Alert) -> dict[str, Any]:
    same = _named(alert, "name", "state", "sentence", "held", "left", "runbook")
    return {"hop": alert.station, "on": alert.is_on, **same}


def _station(station: Station) -> dict[str, Any]:
    hop = station.hop
    return {
        **_named(hop, "name", "group", "unit", "waits", "oldest", "notes"),
        **_named(station, "state", "age", "reason", "rate"),
        "countedTo": hop.counted or None,
        "figures": {name: _number(float(value)) for name, value in hop.figures.items()},
    }


def _past(picture: Picture) -> dict[str, Any]:
    return {
        "span": picture.span,
        "until": [rfc3339(moment) for moment in picture.until],
        "charts": [
            {
                "name": drawn.chart.name,
                "title": drawn.chart.title,
                "unit": drawn.chart.kind,
                "lines": [
                    {"name": line.name, "values": [_number(value) for value in line.values]}
                    for line in drawn.lines
                ],
            }
            for _, charts in picture.groups
            for drawn in charts
        ],
        "marks": [
            {"at": rfc3339(mark.when), "kind": mark.kind, "what": mark.words}
            for mark in picture.marks
        ],
        "earlierMarks": picture.earlier,
    }


def _action(entry: OperatorAction) -> dict[str, Any]:
    same = _named(entry, "id", "by", "what", "subject", "why", "asked", "done", "skipped")
    return {"at": rfc3339(entry.at), "ended": entry.ended_at is not None, **same}


def _process(row: ProcessRow) -> dict[str, Any]:
    said = row.seen.said
    return {
        **_named(said, "name", "kind", "host", "pid", "release", "build", "up", "memory"),
        **_named(row, "state", "replaced", "reason"),
        "heartbeat": _number(row.age),
    }


@dataclass(frozen=True, slots=True)
class _Card:
    station: Station
    waits: str
    oldest: str
    rate: str
    age: str
    controls: Sequence[tuple[str, str]]  # (word, address) of each button


def live_part(snapshot: Snapshot, permissions: frozenset[str]) -> str:
    """The HTML of the parts that the page renews."""
    parts = live_parts(snapshot, permissions)
    return "".join(f'<div data-part="{name}">{html}</div>' for name, html in parts.items())


def live_parts(snapshot: Snapshot, permissions: frozenset[str]) -> Mapping[str, str]:
    """Name of a part -> HTML, rendered once for all viewers with the same permissions."""
    return _parts(snapshot, frozenset(PERMISSIONS) & permissions)


@lru_cache(maxsize=16)
def _parts(snapshot: Snapshot, permissions: frozenset[str]) -> Mapping[str, str]:
    context = _context(snapshot, permissions)
    names = ("now", "charted", "rest")
    return {name: render_to_string(f"operations/{name}.html", context) for name in names}


def _context(snapshot: Snapshot, permissions: frozenset[str]) -> dict[str, Any]:
    return {
        "snapshot": snapshot,
        "as_of": rfc3339(snapshot.as_of) if snapshot.as_of else "",
        "groups": [
            (name, [_card(station, permissions) for station in stations])
            for name, stations in snapshot.groups.items()
        ],
        "letters": snapshot.letters if LETTERS in permissions else (),
        "resolves": RESOLVE in permissions,
        "under_way": [entry for entry in snapshot.actions if entry.ended_at is None],
    }


def what_it_is(row: ProcessRow) -> str:
    """Kind, version and place of a process, and why it is not heard."""
    said = row.seen.said
    text = f"{said.kind}, {Version(said.release, said.build)}, pid {said.pid} on {said.host}"
    return f"{text}; {row.reason}" if row.reason else text


def done_part(entry: OperatorAction, *, stops: bool) -> str:
    """The HTML of one action; `stops`: with the button that stops it."""
    return render_to_string("operations/entry.html", {"entry": entry, "stops": stops})


def charts_part(snapshot: Snapshot, span: str) -> str:
    """The HTML of the charts, drawn once for all viewers when there is a new minute or one passes without."""
    return _drawn(snapshot.past, span, snapshot.past.end)[1]


def picture_of(snapshot: Snapshot, span: str) -> Picture:
    """The charts as numbers and words."""
    return _drawn(snapshot.past, span, snapshot.past.end)[0]


@lru_cache(maxsize=4)
def _drawn(past: Past, span: str, end: datetime | None) -> tuple[Picture, str]:
    """`end`: of the past, which goes on while no new row comes."""
    picture = draw(past, span)
    return picture, render_to_string("operations/charts.html", {"picture": picture})


def progress(entry: OperatorAction) -> str:
    """How far an action is, in words."""
    of = f" of {entry.asked}" if entry.asked is not None else ""
    skipped = f", {entry.skipped} skipped" if entry.skipped else ""
    return f"{entry.done}{of} done{skipped}"


def share(entry: OperatorAction) -> int | None:
    """How much of an action is done, in percent; None if its size is unknown."""
    if not entry.asked:
        return None
    return min(100, 100 * (entry.done + entry.skipped) // entry.asked)


def _controls(hop: Hop, permissions: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The buttons of a station: (word, address)."""
    figures = hop.figures
    if hop.group == "handlers" and PAUSE in permissions:
        stands = figures.get("handler_paused") or figures.get("handler_circuit_open")
        word = "resume" if stands else "pause"
        yield word, _address(f"{word}-handler", hop.name)
    if "outbox_lanes_paused" in figures and LANES in permissions:
        yield "lanes", reverse("ops-lanes")
    if "notification_channel_paused" in figures and CHANNELS in permissions:
        word = "resume" if figures["notification_channel_paused"] else "pause"
        yield word, _address(f"{word}-channel", hop.subject)
    if hop.group == "relay" and LETTERS in permissions:
        yield "dead letters", reverse("ops-relay-letters")
    if hop.subject and "notification_breaker_state" in figures and BREAKERS in permissions:
        yield "reset", _address("reset-breaker", hop.subject)


def _address(action: str, on: str) -> str:
    return f"{reverse('ops-act', args=[action])}?{urlencode({'on': on})}"


def _card(station: Station, permissions: frozenset[str]) -> _Card:
    hop = station.hop
    return _Card(
        station=station,
        waits=words.count(hop.waits, stopped_at=hop.counted),
        oldest="" if hop.oldest is None else words.span(hop.oldest) if hop.oldest else "–",
        rate=words.rate(station.rate) if hop.done is not None else "",
        age=words.span(station.age),
        controls=list(_controls(hop, permissions)),
    )


def cards(stations: Sequence[Station]) -> list[_Card]:
    """The stations in words, without buttons, for the terminal."""
    return [_card(station, frozenset()) for station in stations]
