"""What servers and processes say while everything is as it should be, for tests that take one thing away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from msgspec.structs import replace

from operations.broker import FromRedis
from operations.judge import Judge
from operations.pipeline import Database, FromPostgres
from operations.reading import answered
from operations.snapshot import Heard, Snapshot, take
from outbox.process.heartbeat import Said, SeenProcess
from outbox.watching import Hop

__all__ = [
    "PROCESSES",
    "heard",
    "judged",
    "named",
    "postgres",
    "process",
    "redis",
    "rising",
    "snapshot",
]


def process(kind: str, *, age: float = 1.0, **figures: float) -> SeenProcess:
    """One that was heard `age` seconds ago; a worker has all queues."""
    queues = tuple(queue for queues in settings.WIRING.roles.values() for queue in queues)
    said = Said(
        kind=kind,
        name=kind,
        host="here",
        pid=1,
        release="r",
        up=10.0,
        memory=1,
        disk=(50, 100),
        figures=figures,
        queues=queues if kind == "worker" else (),
    )
    return SeenProcess(said=said, age=age)


def named(seen: SeenProcess, name: str, *, build: str = "") -> SeenProcess:
    """The same by another name, of this build."""
    return replace(seen, said=replace(seen.said, name=name, build=build))


def rising(seen: SeenProcess, **risen: float) -> SeenProcess:
    """The same, of which these counters have risen by so much."""
    return replace(seen, said=replace(seen.said, risen=risen))


PROCESSES = tuple(process(kind) for kind in ("web", "worker", "beat", "bridge"))


def postgres(**more: Any) -> FromPostgres:
    """Every job of the upkeep was done a second ago."""
    done = {alarm.figure: 1.0 for alarm in settings.WIRING.alarms if alarm.absent}
    server = Database(
        version="18",
        up=1.0,
        size=1,
        sessions=1,
        most_sessions=100,
        frozen_age=0,
        snapshot_age=0,
        open_transaction=(0.0, ""),
        slots=(),
    )
    hops = [
        Hop(name="accepted", group="pipeline", done=1),
        Hop(name="upkeep", group="upkeep", figures=done),
    ]
    fields: dict[str, Any] = {
        "server": server,
        "hops": hops,
        "handlers": (),
        "letters": (),
        "actions": (),
        "failed": {},
    }
    return FromPostgres(**(fields | more))


def redis(processes: Sequence[SeenProcess] = PROCESSES, *, kinds: Sequence[str] = ()) -> FromRedis:
    """`kinds`: of processes that have run, beside those that do."""
    return FromRedis(
        processes=processes,
        kinds=frozenset([*kinds, *(each.said.kind for each in processes)]),
        queues={},
        version="8",
        up=1.0,
        memory=1,
        limit=0,
        policy="noeviction",
    )


def snapshot(
    judge: Judge,
    *,
    failed: Mapping[str, str] | None = None,
    from_redis: FromRedis | None = None,
    from_postgres: FromPostgres | None = None,
) -> Snapshot:
    """All three servers have just answered."""
    readings = heard(from_redis, from_postgres or postgres(failed=failed or {}))
    return judged(judge, readings)


def heard(from_redis: FromRedis | None = None, from_postgres: FromPostgres | None = None) -> Heard:
    """All three servers have just answered."""
    return Heard(
        postgres=answered(from_postgres or postgres()),
        redis=answered(from_redis or redis()),
        kafka=answered({}),
    )


def judged(judge: Judge, heard: Heard) -> Snapshot:
    return take(heard, judge)
