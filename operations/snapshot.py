"""The snapshot: the readings of all servers, judged and put in order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from django.conf import settings

from operations import words
from operations.broker import FromRedis
from operations.judge import Alert, Judge, Station, by_age, worst
from operations.letters import LetterGroup
from operations.past import NOTHING, Past
from operations.pipeline import FromPostgres, HandlerRow
from operations.reading import KAFKA, POSTGRESQL, REDIS, Reading
from operations.running import ProcessRow, process_rows, stations_of
from operations.time_left import Deadline, deadlines
from outbox import conf
from outbox.database.operator_log import Entry
from outbox.kafka.admin import TopicState
from outbox.process.heartbeat import processes_here
from outbox.watching import AMBER, GREEN, GREY, RED, Alarm, Hop, State

__all__ = ["Heard", "Server", "Snapshot", "Unread", "take"]

Logs = Mapping[str, TopicState]
_AHEAD = ("pipeline", "handlers")
_BEHIND = (
    "relay",
    "dead letters",
    "business",
    "live feeds",
    "upkeep",
    "Celery queues",
    "processes",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The last readings of all servers."""

    postgres: Reading[FromPostgres]
    redis: Reading[FromRedis]
    kafka: Reading[Logs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server and whether it answers; `facts` are short texts."""

    name: str
    state: State
    age: float
    reason: str
    facts: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """An app of which nothing is known, although PostgreSQL answers."""

    app: str
    state: State
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of everything at one moment. `releases`: those of the running processes."""

    at: datetime
    state: State
    servers: Sequence[Server]
    stations: Sequence[Station]
    processes: Sequence[ProcessRow]
    deadlines: Sequence[Deadline]
    letters: Sequence[LetterGroup]
    actions: Sequence[Entry]
    releases: Sequence[str]
    unread: Sequence[Unread]
    past: Past

    @property
    def alerts(self) -> list[Alert]:
        """All alerts, the worst first."""
        found = [alert for station in self.stations for alert in station.alerts]
        return sorted(found, key=lambda each: (each.state != RED, not each.is_on, -each.held))

    @property
    def groups(self) -> dict[str, list[Station]]:
        """Heading -> its stations, in the order of the pipeline."""
        groups: dict[str, list[Station]] = {}
        for station in self.stations:
            groups.setdefault(station.hop.group, []).append(station)
        return groups

    @property
    def sentence(self) -> str:
        """The whole state in one sentence."""
        away = [server.name for server in self.servers if server.reason]
        on = [alert for alert in self.alerts if alert.is_on]
        parts = []
        if away:
            parts.append(f"{_listed(away)} cannot be asked")
        if self.unread:
            parts.append(f"{_listed([each.app for each in self.unread])} cannot be read")
        if on:
            parts.append(f"{len(on)} alarm{'s are' if len(on) > 1 else ' is'} on")
        if coming := len(self.alerts) - len(on):
            parts.append(f"{coming} more may come")
        if not parts:
            return {
                GREEN: "Everything is as it should be.",
                GREY: "Not everything is known.",
            }.get(self.state, "Something is not as it should be.")
        return f"{', '.join(parts)}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if names[1:] else names[0]


def take(heard: Heard, judge: Judge, alarms: Sequence[Alarm]) -> Snapshot:
    """Judge the readings."""
    postgres, redis, kafka = heard.postgres.value, heard.redis.value, heard.kafka.value
    processes = _processes(heard.redis)
    stations = [
        *_of_postgres(heard, judge, alarms),
        *(stations_of(redis, processes, heard.redis, judge) if redis else ()),
    ]
    servers = _servers(heard)
    unread = _unread(postgres, judge) if postgres else []
    at = max(heard.postgres.read_at, heard.redis.read_at)
    left = deadlines(postgres, redis, judge, at=at)
    running = [row.seen.said.release for row in processes if row.state == GREEN]
    states = [
        *(station.state for station in stations),
        *(server.state for server in servers),
        *(row.state for row in processes if not row.replaced),
        *(each.state for each in left),
        *(each.state for each in unread),
    ]
    return Snapshot(
        at=datetime.now(UTC),
        state=worst(states),
        servers=servers,
        stations=_in_order(stations, _of_kafka(kafka, heard.kafka, judge) if kafka else None),
        processes=processes,
        deadlines=left,
        letters=postgres.letters if postgres else (),
        actions=postgres.actions if postgres else (),
        releases=sorted(set(running)),
        unread=unread,
        past=postgres.past if postgres else NOTHING,
    )


def _unread(postgres: FromPostgres, judge: Judge) -> list[Unread]:
    """Its hops are not there at all, so nothing else would say that they are missing."""
    found = []
    asked = {dotted.partition(".")[0] for dotted in settings.WIRING.hops}
    for app in sorted(asked | {source.name for source in conf.letter_sources()}):
        why = postgres.failed.get(app)
        since = judge.missing_since(f"hops of {app}", is_missing=why is not None)
        if why is not None:
            state, reason = by_age(Reading(since=since, error=f"could not be read: {why}"))
            found.append(Unread(app=app, state=state, reason=reason))
    return found


def _in_order(stations: Sequence[Station], kafka: Station | None) -> list[Station]:
    """Stations in the order in which an event passes them, then the others. Kafka comes after the outbox, and
    the groups of apps come before the dead letters."""
    found = [*stations]
    if kafka is not None:
        found.insert(sum(each.hop.group == "pipeline" for each in stations), kafka)
    behind = {group: place for place, group in enumerate(_BEHIND)}
    ahead = {group: place for place, group in enumerate(_AHEAD, start=-len(_AHEAD))}

    def place(station: Station) -> int:
        group = station.hop.group
        return ahead[group] if group in ahead else behind.get(group, -1) + 1

    return sorted(found, key=place)


def _of_postgres(heard: Heard, judge: Judge, alarms: Sequence[Alarm]) -> list[Station]:
    value = heard.postgres.value
    if value is None:
        return []
    hops = [_with_absent(hop, alarms) if hop.group == "upkeep" else hop for hop in value.hops]
    first = [hop for hop in hops if hop.group == "pipeline"]
    rest = [hop for hop in hops if hop.group != "pipeline"]
    logs = heard.kafka.value
    return [
        *(judge.judge(hop, [heard.postgres]) for hop in first),
        *(
            judge.judge(_handler(row, logs), [heard.postgres, heard.kafka])
            for row in value.handlers
        ),
        *(judge.judge(hop, [heard.postgres]) for hop in rest),
    ]


def _with_absent(hop: Hop, alarms: Sequence[Alarm]) -> Hop:
    """A job that has never been done counts as done long ago."""
    never = {alarm.figure: float("inf") for alarm in alarms if alarm.absent}
    done = {figure: age for figure, age in hop.figures.items() if figure in never}
    latest = min(done.values(), default=None)
    notes = (f"last job done {words.span(latest)} ago",) if latest is not None else ()
    return replace(hop, figures=never | dict(hop.figures), notes=notes)


def _handler(row: HandlerRow, logs: Logs | None) -> Hop:
    route = conf.route_named(row.status.handler)
    figures: dict[str, float] = {
        "handler_oldest_unapplied_seconds": row.oldest,
        # As in the gauges: a paused handler raises no alarm about its circuit.
        "handler_paused": row.status.paused and not row.status.tripped,
        "handler_circuit_open": row.status.tripped,
        "handler_retention_used_ratio": row.oldest / (route.topic.retention_hours * 3600),
        "audit_missing_events": row.missing,
        "audit_behind_seconds": row.audit_behind,
    }
    if row.canary is not None:
        figures["handler_canary_age_seconds"] = row.canary
    waits = None
    state = (logs or {}).get(route.topic.name)
    if state is not None:
        own = {part: at for (name, part), at in row.positions.items() if name == state.name}
        waits = sum(
            max(0, state.latest[part] - at) for part, at in own.items() if part in state.latest
        )
        figures["handler_backlog_events"] = waits
        figures["handler_partitions_unread"] = len(state.latest.keys() - own.keys())
        figures["bridge_positions_out_of_range"] = sum(
            not state.earliest[part] <= at for part, at in own.items() if part in state.earliest
        )
    notes = []
    if row.status.paused:
        notes.append(f"paused by {row.status.changed_by}: {row.status.reason or 'no reason given'}")
    if row.canary is not None:
        notes.append(f"last canary {words.span(row.canary)} ago")
    if row.last_error:
        notes.append(row.last_error)
    return Hop(
        name=row.status.handler,
        group="handlers",
        waits=waits,
        oldest=row.oldest,
        done=sum(row.positions.values()),
        unit="messages",
        figures=figures,
        since={"handler_paused": row.paused_for, "handler_circuit_open": row.paused_for},
        notes=tuple(notes),
        page="/admin/outbox/handlercontrol/",
    )


def _of_kafka(logs: Logs, reading: Reading[Logs], judge: Judge) -> Station:
    hop = Hop(
        name="in Kafka",
        group="pipeline",
        done=sum(sum(state.latest.values()) for state in logs.values()),
        unit="messages",
    )
    return judge.judge(hop, [reading])


def _processes(reading: Reading[FromRedis]) -> list[ProcessRow]:
    """What Redis knows of the processes. While it does not answer, this process speaks for itself."""
    seen = reading.value.processes if reading.value else ()
    if reading.value and not reading.error:
        return process_rows(seen, reading)
    here = processes_here()
    ours = {(each.said.host, each.said.pid) for each in here}
    others = [each for each in seen if (each.said.host, each.said.pid) not in ours]
    just_said: Reading[FromRedis] = Reading(read_at=time.monotonic())
    return [*process_rows(here, just_said), *process_rows(others, reading)]


def _servers(heard: Heard) -> list[Server]:
    postgres, redis, kafka = heard.postgres.value, heard.redis.value, heard.kafka.value
    return [
        _server(POSTGRESQL, heard.postgres, RED, _facts_of_postgres(postgres) if postgres else ()),
        _server(REDIS, heard.redis, AMBER, _facts_of_redis(redis) if redis else ()),
        _server(KAFKA, heard.kafka, AMBER, (f"{len(kafka)} topics",) if kafka else ()),
    ]


def _server(name: str, reading: Reading[object], away: State, facts: Sequence[str]) -> Server:
    state, reason = by_age(reading)
    if reading.error:
        state, reason = worst([state, away]), reason or reading.error
    return Server(name=name, state=state, age=reading.age, reason=reason, facts=facts)


def _facts_of_postgres(value: FromPostgres) -> Sequence[str]:
    server = value.server
    return (
        f"version {server.version}, up {words.span(server.up)}",
        f"{words.bytes_of(server.size)}, {server.sessions} of {server.most_sessions} sessions",
    )


def _facts_of_redis(value: FromRedis) -> Sequence[str]:
    limit = f" of {words.bytes_of(value.limit)}" if value.limit else ""
    return (
        f"version {value.version}, up {words.span(value.up)}",
        f"{words.bytes_of(value.memory)}{limit} of memory, {value.policy}",
    )
