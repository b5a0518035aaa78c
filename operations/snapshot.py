"""The snapshot: the readings of all servers, judged and put in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from operations import words
from operations.broker import FromRedis
from operations.judge import GREY_AFTER, Alert, Judge, Station, by_age, worst
from operations.letters import LetterGroup
from operations.past import NOTHING, Past
from operations.pipeline import FromPostgres, HandlerRow
from operations.reading import KAFKA, POSTGRESQL, REDIS, Reading
from operations.time_left import Deadline, deadlines
from outbox import conf
from outbox.kafka.admin import TopicState
from outbox.operator_log import Entry
from outbox.process.heartbeat import SeenProcess
from outbox.watching import AMBER, GREEN, GREY, RED, Alarm, Hop, State

__all__ = ["Heard", "ProcessRow", "Server", "Snapshot", "take"]

EXPECTED = ("web", "worker", "beat", "bridge")  # a relay is expected once one has run
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
class ProcessRow:
    """A process. `replaced`: a newer process of the same name on its machine has taken its place."""

    seen: SeenProcess
    state: State
    replaced: bool


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
    failed: Mapping[str, str]
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
            names = " and ".join([", ".join(away[:-1]), away[-1]]) if away[1:] else away[0]
            parts.append(f"{names} cannot be asked")
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


def take(heard: Heard, judge: Judge, alarms: Sequence[Alarm]) -> Snapshot:
    """Judge the readings."""
    postgres, redis, kafka = heard.postgres.value, heard.redis.value, heard.kafka.value
    processes = _processes(redis.processes, heard.redis) if redis else []
    stations = [
        *_of_postgres(heard, judge, alarms),
        *(_of_redis(redis, processes, heard.redis, judge) if redis else ()),
    ]
    servers = _servers(heard)
    at = max(heard.postgres.read_at, heard.redis.read_at)
    left = deadlines(postgres, redis, judge, at=at)
    running = [row.seen.said.release for row in processes if row.state == GREEN]
    states = [
        *(station.state for station in stations),
        *(server.state for server in servers),
        *(row.state for row in processes if not row.replaced),
        *(each.state for each in left),
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
        failed=postgres.failed if postgres else {},
        past=postgres.past if postgres else NOTHING,
    )


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


def _of_redis(
    value: FromRedis, processes: Sequence[ProcessRow], reading: Reading[FromRedis], judge: Judge
) -> list[Station]:
    alive = [row.seen for row in processes if row.state == GREEN]
    unserved = sorted(value.queues.keys() - {queue for seen in alive for queue in seen.said.queues})
    stations = [
        judge.judge(_queues(value, unserved), [reading], least=AMBER if unserved else GREEN),
        judge.judge(_kinds(value, alive), [reading]),
    ]
    if "relay" in value.kinds:
        relays = [seen for seen in alive if seen.said.kind == "relay"]
        stations.insert(0, judge.judge(_relay(relays), [reading]))
    return stations


def _queues(value: FromRedis, unserved: Sequence[str]) -> Hop:
    longest = max(value.queues, key=lambda name: value.queues[name], default="")
    waits = sum(value.queues.values())
    notes = [f"no worker serves {', '.join(unserved)}"] if unserved else []
    if waits:
        notes.append(f"most in {longest}: {value.queues[longest]:,}")
    return Hop(name="tasks", group="Celery queues", waits=waits, unit="tasks", notes=tuple(notes))


def _kinds(value: FromRedis, alive: Sequence[SeenProcess]) -> Hop:
    kinds = [*EXPECTED, *(["relay"] if "relay" in value.kinds else ())]
    counts = {kind: sum(seen.said.kind == kind for seen in alive) for kind in kinds}
    return Hop(
        name="running",
        group="processes",
        unit="processes",
        figures={f'process_up{{process="{kind}"}}': number for kind, number in counts.items()},
        notes=(", ".join(f"{number} {kind}" for kind, number in counts.items()),),
    )


def _relay(relays: Sequence[SeenProcess]) -> Hop:
    told = [seen.said.figures for seen in relays]

    def of(series: str) -> list[float]:
        return [figures[series] for figures in told if series in figures]

    figures = {}
    if told:
        figures = {
            "relay_consuming": sum(of("relay_consuming")),
            "relay_kafka_up": min(of("relay_kafka_up"), default=0.0),
            "oldest_unacked_seconds": max(of("oldest_unacked_seconds"), default=0.0),
            "relay_dead_letters_waiting": sum(of("relay_dead_letters_waiting")),
        }
    return Hop(
        name="RabbitMQ to Kafka",
        group="relay",
        waits=int(sum(of("in_flight_events"))) if told else None,
        oldest=figures.get("oldest_unacked_seconds"),
        done=int(sum(of("events_published_total"))) if told else None,
        unit="messages",
        figures=figures,
        page="/ops/relay-letters",
    )


def _processes(seen: Sequence[SeenProcess], reading: Reading[FromRedis]) -> list[ProcessRow]:
    """The processes. A silent one is red, unless a newer one of its name runs."""
    asked, _ = by_age(reading)
    fresh = {(each.said.name, each.said.host) for each in seen if each.age <= GREY_AFTER}
    rows = []
    for each in seen:
        replaced = each.age > GREY_AFTER and (each.said.name, each.said.host) in fresh
        state: State = GREEN if each.age <= GREY_AFTER else AMBER
        if each.age > 60:
            state = RED
        rows.append(
            ProcessRow(
                seen=each,
                state=GREY if replaced else worst([state, asked]),
                replaced=replaced,
            )
        )
    return rows


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
