"""What runs, by what Redis says: the processes, Celery's queues and the relay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from django.conf import settings

from operations import words
from operations.broker import FromRedis
from operations.judge import GREY_AFTER, Judge, Station, by_age
from operations.reading import Reading
from outbox.process.heartbeat import SeenProcess
from outbox.watching import AMBER, GREEN, GREY, Hop, State

__all__ = ["ProcessRow", "process_rows", "stations_of"]

TASKS_BEGUN = "tasks_begun"
EXPECTED = ("web", "worker", "beat", "bridge")  # a relay is expected once one has run


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """A process. `age`: seconds since its last heartbeat; `reason`: why there is no newer one; `replaced`: a newer
    process of the same name on its machine has taken its place."""

    seen: SeenProcess
    state: State
    age: float
    reason: str
    replaced: bool


def stations_of(
    value: FromRedis, processes: Sequence[ProcessRow], reading: Reading[FromRedis], judge: Judge
) -> list[Station]:
    """The relay where one has run, Celery's queues, and how many run of each kind."""
    alive = [row.seen for row in processes if row.state == GREEN]
    unserved = sorted(value.queues.keys() - {queue for seen in alive for queue in seen.said.queues})
    stations = [
        judge.judge(_queues(value, unserved), [reading], least=AMBER if unserved else GREEN),
        judge.judge(_kinds(value, alive), [reading]),
    ]
    if "relay" in value.kinds:
        stations.insert(0, _relay(value, reading, judge))
    return stations


def _queues(value: FromRedis, unserved: Sequence[str]) -> Hop:
    longest = max(value.queues, key=lambda name: value.queues[name], default="")
    waits = sum(value.queues.values())
    notes = [f"no worker serves {', '.join(unserved)}"] if unserved else []
    if waits:
        notes.append(f"most in {longest}: {value.queues[longest]:,}")
    oldest = max(value.oldest.values(), default=None if waits else 0.0)
    begun = [
        seen.said.figures[TASKS_BEGUN]
        for seen in value.processes
        if TASKS_BEGUN in seen.said.figures
    ]
    return Hop(
        name="tasks",
        group="Celery queues",
        waits=waits,
        oldest=oldest,
        done=int(sum(begun)) if begun else None,
        unit="tasks",
        notes=tuple(notes),
    )


def _kinds(value: FromRedis, alive: Sequence[SeenProcess]) -> Hop:
    kinds = [*EXPECTED, *(["relay"] if "relay" in value.kinds else ())]
    others = [seen for seen in value.processes if seen.said.kind != "relay"]
    counts = {kind: sum(seen.said.kind == kind for seen in alive) for kind in kinds}
    return Hop(
        name="running",
        group="processes",
        unit="processes",
        figures={f'process_up{{process="{kind}"}}': number for kind, number in counts.items()}
        | _risen(others),
        notes=(", ".join(f"{number} {kind}" for kind, number in counts.items()),),
    )


def _relay(value: FromRedis, reading: Reading[FromRedis], judge: Judge) -> Station:
    """As old as the last words of a relay; those of one that is silent raise no alarm."""
    relays = [seen for seen in value.processes if seen.said.kind == "relay"]
    speaking = [seen for seen in relays if seen.age <= GREY_AFTER]
    since = judge.missing_since("relay", is_missing=not relays)
    last = Reading(
        value,
        reading.read_at - min((seen.age for seen in relays), default=math.inf),
        "no relay sends heartbeats",
        -math.inf if relays else since,
    )
    hop = _relay_hop(speaking or relays, alarms=bool(speaking))
    if speaking:
        hop = replace(hop, figures={**hop.figures, **_risen(relays)})
    return judge.judge(hop, [reading, last])


def _risen(processes: Sequence[SeenProcess]) -> dict[str, float]:
    """What counters have risen by, of processes that have died too: figure of an alarm -> sum."""
    return {
        alarm.figure: sum(
            seen.said.risen.get(alarm.figure, 0.0) for seen in processes if seen.age <= alarm.rises
        )
        for alarm in settings.WIRING.alarms
        if alarm.rises
    }


def _relay_hop(relays: Sequence[SeenProcess], *, alarms: bool) -> Hop:
    figures_of_each = [seen.said.figures for seen in relays]

    def of(series: str) -> list[float]:
        return [figures[series] for figures in figures_of_each if series in figures]

    figures = {
        "relay_consuming": sum(of("relay_consuming")),
        "relay_kafka_up": min(of("relay_kafka_up"), default=0.0),
        "oldest_unacked_seconds": max(of("oldest_unacked_seconds"), default=0.0),
        "relay_dead_letters_waiting": sum(of("relay_dead_letters_waiting")),
    }
    # All relays see the same queues.
    in_rabbitmq = max(of("relay_queue_messages"), default=None)
    letters = max(of("relay_dead_letter_queue_messages"), default=None)
    if in_rabbitmq is not None:
        figures["relay_queue_messages"] = in_rabbitmq
    if letters is not None:
        figures["relay_dead_letter_queue_messages"] = letters
    # What one sends another one may take, so it is enough that one of them gets canaries.
    canary = min(of("relay_canary_age_seconds"), default=None)
    if canary is not None:
        figures["relay_canary_age_seconds"] = canary
    on_their_way = sum(of("in_flight_events"))
    notes = [
        f"{words.count(in_rabbitmq)} in RabbitMQ, {words.count(on_their_way)} on the way to Kafka",
        f"{words.count(letters)} dead letters",
    ]
    if canary is not None:
        notes.append(f"last canary {words.span(canary)} ago")
    return Hop(
        name="RabbitMQ to Kafka",
        group="relay",
        waits=None if in_rabbitmq is None else int(in_rabbitmq + on_their_way),
        oldest=figures["oldest_unacked_seconds"] if figures_of_each else None,
        done=int(sum(of("events_published_total"))) if figures_of_each else None,
        unit="messages",
        figures=figures if alarms else {},
        notes=tuple(notes) if figures_of_each else (),
        page="/ops/relay-letters",
    )


def process_rows(seen: Sequence[SeenProcess], reading: Reading[FromRedis]) -> list[ProcessRow]:
    """The processes. One is as old as its last heartbeat, unless a newer one of its name runs."""
    fresh = {(each.said.name, each.said.host) for each in seen if each.age <= GREY_AFTER}
    rows = []
    for each in seen:
        replaced = each.age > GREY_AFTER and (each.said.name, each.said.host) in fresh
        last = reading.older(each.age, "it sends no heartbeats")
        state, reason = by_age(last)
        rows.append(
            ProcessRow(
                seen=each,
                state=GREY if replaced else state,
                age=last.age,
                reason="" if replaced else reason,
                replaced=replaced,
            )
        )
    return rows
