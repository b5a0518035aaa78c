"""The snapshot as JSON, and as the part of the page that is renewed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.template.loader import render_to_string

from operations import words
from operations.judge import Alert, Station
from operations.snapshot import ProcessRow, Snapshot
from outbox.envelope import rfc3339

__all__ = ["as_json", "cards", "live_part"]

PERMISSIONS = (PAUSE, LETTERS, RESOLVE) = (
    "outbox.change_handlercontrol",
    "outbox.view_deadletter",
    "outbox.change_deadletter",
)


def as_json(snapshot: Snapshot) -> dict[str, Any]:
    """What /ops/status.json and `ops status --json` say. Times in seconds; null: not known."""
    return {
        "at": rfc3339(snapshot.at),
        "state": snapshot.state,
        "sentence": snapshot.sentence,
        "alarms": [_alert(alert) for alert in snapshot.alerts],
        "servers": [
            {
                "name": each.name,
                "state": each.state,
                "age": _number(each.age),
                "reason": each.reason,
                "facts": list(each.facts),
            }
            for each in snapshot.servers
        ],
        "hops": [_station(station) for station in snapshot.stations],
        "timeLeft": [
            {
                "name": each.name,
                "state": each.state,
                "left": _number(each.left),
                "standing": each.standing,
                "ends": each.ends,
            }
            for each in snapshot.deadlines
        ],
        "processes": [_process(row) for row in snapshot.processes],
        "releases": list(snapshot.releases),
        "failed": dict(snapshot.failed),
    }


def _number(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else round(value, 3)


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "name": alert.name,
        "hop": alert.station,
        "state": alert.state,
        "on": alert.is_on,
        "sentence": alert.sentence,
        "held": _number(alert.held),
        "left": _number(alert.left),
        "runbook": alert.runbook,
    }


def _station(station: Station) -> dict[str, Any]:
    hop = station.hop
    return {
        "name": hop.name,
        "group": hop.group,
        "state": station.state,
        "age": _number(station.age),
        "reason": station.reason,
        "unit": hop.unit,
        "waits": hop.waits,
        "countedTo": hop.counted or None,
        "oldest": _number(hop.oldest),
        "rate": _number(station.rate),
        "notes": list(hop.notes),
        "figures": {name: _number(float(value)) for name, value in hop.figures.items()},
    }


def _process(row: ProcessRow) -> dict[str, Any]:
    said = row.seen.said
    return {
        "name": said.name,
        "kind": said.kind,
        "host": said.host,
        "pid": said.pid,
        "state": row.state,
        "replaced": row.replaced,
        "release": said.release,
        "up": _number(said.up),
        "heartbeat": _number(row.seen.age),
        "memory": said.memory,
    }


@dataclass(frozen=True, slots=True)
class _Card:
    """A station in words."""

    station: Station
    waits: str
    oldest: str
    rate: str
    age: str
    control: str  # what may be pressed: pause, resume or ""

    @property
    def sentences(self) -> Iterator[tuple[str, str]]:
        """(what, when) of its alarms."""
        for alert in self.station.alerts:
            yield alert.sentence, alert.when


def live_part(snapshot: Snapshot, permissions: frozenset[str]) -> str:
    """The HTML. It is made once for all viewers with the same permissions."""
    asked = frozenset(PERMISSIONS) & permissions
    return _parts.of(snapshot, asked)


class _Parts:
    """Of the newest snapshot: permissions -> HTML."""

    def __init__(self) -> None:
        self._made: tuple[Snapshot | None, dict[frozenset[str], str]] = (None, {})

    def of(self, snapshot: Snapshot, permissions: frozenset[str]) -> str:
        of, made = self._made
        if of is not snapshot:
            made = {}
            self._made = snapshot, made
        if permissions not in made:
            context = _context(snapshot, permissions)
            made[permissions] = render_to_string("operations/live.html", context)
        return made[permissions]


_parts = _Parts()


def _context(snapshot: Snapshot, permissions: frozenset[str]) -> dict[str, Any]:
    pauses = PAUSE in permissions
    return {
        "snapshot": snapshot,
        "at": rfc3339(snapshot.at),
        "groups": [
            (name, [_card(station, pauses=pauses) for station in stations])
            for name, stations in snapshot.groups.items()
        ],
        "deadlines": [
            (each, "–" if each.left is None else words.span(each.left))
            for each in snapshot.deadlines
        ],
        "processes": [
            (
                row,
                words.span(row.seen.said.up),
                words.span(row.seen.age),
                words.bytes_of(row.seen.said.memory),
            )
            for row in snapshot.processes
        ],
        "servers": [(server, words.span(server.age)) for server in snapshot.servers],
        "letters": [(group, words.span(group.oldest)) for group in snapshot.letters]
        if LETTERS in permissions
        else [],
        "resolves": RESOLVE in permissions,
        "actions": [(rfc3339(at), by, what, why) for at, by, what, why in snapshot.actions],
    }


def _card(station: Station, *, pauses: bool) -> _Card:
    hop = station.hop
    control = ""
    if pauses and hop.group == "handlers":
        figures = hop.figures
        stands = figures.get("handler_paused") or figures.get("handler_circuit_open")
        control = "resume" if stands else "pause"
    return _Card(
        station=station,
        waits=words.count(hop.waits, stopped_at=hop.counted),
        oldest="" if hop.oldest is None else words.span(hop.oldest) if hop.oldest else "–",
        rate=words.rate(station.rate) if hop.done is not None else "",
        age=words.span(station.age),
        control=control,
    )


def cards(stations: Sequence[Station]) -> list[_Card]:
    """In words, without anything to press: for the terminal."""
    return [_card(station, pauses=False) for station in stations]
