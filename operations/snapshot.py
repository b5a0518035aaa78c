"""The snapshot: the readings of all servers, judged and put in order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.utils.text import get_text_list

from eventsite.rollout import Version
from operations import pipeline, words
from operations.broker import FromRedis
from operations.judge import Alert, Judge, News, Station, by_age, news_of, worst
from operations.letters import LetterGroup
from operations.past import NOTHING, Past
from operations.pipeline import FromPostgres, HandlerRow
from operations.reading import KAFKA, POSTGRESQL, REDIS, Reading
from operations.running import ProcessRow, process_rows, stations_of
from operations.time_left import Deadline, deadlines
from outbox import conf
from outbox.kafka.admin import TopicState
from outbox.models import OperatorAction
from outbox.process.heartbeat import processes_here
from outbox.watching import GREEN, GREY, RED, WITHOUT, Hop, State

__all__ = ["Heard", "Server", "Snapshot", "Unread", "take"]

Logs = Mapping[str, TopicState]
_OF_APPS = ""  # the groups that no name here is of
_ORDER = (
    "pipeline",
    "handlers",
    _OF_APPS,
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """The state of everything at one moment.

    at        when it was judged
    as_of     when the oldest of the servers' last answers came; None: no server has answered
    versions  those of the running processes
    stored    the age of letters and actions, which PostgreSQL tells
    charted   the age of the past, which ends where no new row comes
    """

    at: datetime
    as_of: datetime | None
    state: State
    servers: Sequence[Server]
    stations: Sequence[Station]
    processes: Sequence[ProcessRow]
    deadlines: Sequence[Deadline]
    letters: Sequence[LetterGroup]
    actions: Sequence[OperatorAction]
    versions: Sequence[Version]
    unread: Sequence[Unread]
    past: Past
    stored: News
    charted: News

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
    def several(self) -> str:
        """Says which versions run at once; empty if it is one."""
        if len(self.versions) < 2:
            return ""
        many = "Two" if len(self.versions) == 2 else len(self.versions)
        versions = get_text_list([str(each) for each in self.versions], "and")
        return f"{many} versions run at once: {versions}."

    @property
    def sentence(self) -> str:
        """The whole state in one sentence."""
        away = [server.name for server in self.servers if server.reason]
        on = [alert for alert in self.alerts if alert.is_on]
        parts = []
        if away:
            verb = "are" if len(away) > 1 else "is"
            parts.append(f"{get_text_list(away, 'and')} {verb} unavailable")
        if self.unread:
            parts.append(
                f"{get_text_list([each.app for each in self.unread], 'and')} cannot be read"
            )
        if on:
            parts.append(f"{len(on)} alarm{'s are' if len(on) > 1 else ' is'} on")
        if coming := len(self.alerts) - len(on):
            parts.append(f"{coming} alarm{'s' if coming > 1 else ''} may follow")
        if not parts:
            return {
                GREEN: "Everything is as it should be.",
                GREY: "Not everything is known.",
            }.get(self.state, "Something is not as it should be.")
        return f"{', '.join(parts)}."


def take(heard: Heard, judge: Judge) -> Snapshot:
    """Judge the readings."""
    postgres, redis, kafka = heard.postgres.value, heard.redis.value, heard.kafka.value
    processes = _processes(heard.redis)
    stations = [
        *_of_postgres(heard, judge),
        *(_of_kafka(kafka, heard.kafka, judge) if kafka else ()),
        *(stations_of(redis, processes, heard.redis, judge) if redis else ()),
    ]
    servers = _servers(heard)
    unread = _unread(postgres, judge) if postgres else []
    left = [
        *_aged(deadlines(postgres, None, judge, at=heard.postgres.read_at), heard.postgres),
        *_aged(deadlines(None, redis, judge, at=heard.redis.read_at), heard.redis),
    ]
    left.sort(key=lambda each: float("inf") if each.left is None else each.left)
    running = [row.seen.said for row in processes if row.state == GREEN]
    past = postgres.past if postgres else NOTHING
    stored = news_of(heard.postgres)
    charted = _charted(past, stored)
    states = [
        *(station.state for station in stations),
        *(server.state for server in servers),
        *(row.state for row in processes if not row.replaced),
        *(each.state for each in left if each.has_end),
        *(each.state for each in unread),
        charted.state,
    ]
    now = datetime.now(UTC)
    ages = [
        each.age for each in (heard.postgres, heard.redis, heard.kafka) if each.value is not None
    ]
    return Snapshot(
        at=now,
        as_of=now - timedelta(seconds=max(ages)) if ages else None,
        state=worst(states),
        servers=servers,
        stations=_in_order(stations),
        processes=processes,
        deadlines=left,
        letters=postgres.letters if postgres else (),
        actions=postgres.actions if postgres else (),
        versions=sorted({Version(said.release, said.build) for said in running}, key=str),
        unread=unread,
        past=past,
        stored=stored,
        charted=charted,
    )


def _aged(found: Iterable[Deadline], reading: Reading[object]) -> Iterator[Deadline]:
    """Deadlines with the age of their numbers. Some were old already when the server sent them."""
    for each in found:
        last = reading.older(each.age, "no process there sends heartbeats") if each.age else reading
        state, reason = by_age(last)
        yield replace(each, state=worst([each.state, state]), age=last.age, reason=reason)


def _charted(past: Past, stored: News) -> News:
    """A past that ends is grey, however new the answer is that says so."""
    if not past.late:
        return stored
    ended = f"last row {words.span(past.late)} ago"
    reason = "; ".join(filter(None, [stored.reason, ended]))
    return replace(stored, state=worst([stored.state, GREY]), reason=reason)


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


def _in_order(stations: Sequence[Station]) -> list[Station]:
    """Stations in the order in which an event passes them, then the others; those of one group stay in theirs."""
    places = {group: place for place, group in enumerate(_ORDER)}
    return sorted(stations, key=lambda each: places.get(each.hop.group, places[_OF_APPS]))


def _of_postgres(heard: Heard, judge: Judge) -> list[Station]:
    value = heard.postgres.value
    if value is None:
        return []
    hops = [_with_absent(hop) if hop.group == "upkeep" else hop for hop in value.hops]
    handlers = [_handler(row, heard.kafka.value) for row in value.handlers]
    return [
        *(judge.judge(hop, [heard.postgres]) for hop in hops),
        *(judge.judge(hop, [heard.postgres, heard.kafka]) for hop in handlers),
    ]


def _with_absent(hop: Hop) -> Hop:
    """A job that has never been done counts as done long ago."""
    never = {alarm.figure: float("inf") for alarm in settings.WIRING.alarms if alarm.absent}
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
    if state is not None and row.positions is not None:
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
    if row.positions is None:
        notes.append(
            f"it has more than {pipeline.ENOUGH:,} positions: they are not read, so its backlog is not known"
        )
    if row.last_error:
        notes.append(row.last_error)
    return Hop(
        name=row.status.handler,
        group="handlers",
        waits=waits,
        oldest=row.oldest,
        done=None if row.positions is None else sum(row.positions.values()),
        unit="messages",
        figures=figures,
        since={"handler_paused": row.paused_for, "handler_circuit_open": row.paused_for},
        notes=tuple(notes),
        page="/admin/outbox/handlercontrol/",
    )


def _of_kafka(logs: Logs, reading: Reading[Logs], judge: Judge) -> list[Station]:
    hop = Hop(
        name="in Kafka",
        group="pipeline",
        done=sum(sum(state.latest.values()) for state in logs.values()),
        unit="messages",
        notes=("what waits, and since when, is at each handler: each reads by itself",),
    )
    return [judge.judge(hop, [reading])]


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
        _server(
            POSTGRESQL,
            heard.postgres,
            WITHOUT["database"],
            _facts_of_postgres(postgres) if postgres else (),
        ),
        _server(REDIS, heard.redis, WITHOUT["redis"], _facts_of_redis(redis) if redis else ()),
        _server(KAFKA, heard.kafka, WITHOUT["kafka"], (f"{len(kafka)} topics",) if kafka else ()),
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
        f"pg_wal: {words.bytes_of(server.wal)}",
    )


def _facts_of_redis(value: FromRedis) -> Sequence[str]:
    limit = f" of {words.bytes_of(value.limit)}" if value.limit else ""
    return (
        f"version {value.version}, up {words.span(value.up)}",
        f"{words.bytes_of(value.memory)}{limit} of memory, {value.policy}",
    )
