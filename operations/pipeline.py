"""What the page reads from PostgreSQL and Kafka about the pipeline. Each query is bounded, however large the tables are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils.module_loading import import_string

from operations import canary
from operations.letters import ERROR_SHOWN, LetterGroup, groups_of, letter_groups
from operations.past import NOTHING, Past, PastReader
from outbox import conf, operator_log
from outbox.audit.compare import MISSING
from outbox.audit.watch import behind_seconds
from outbox.conf import DRAIN_HANDLER
from outbox.database import jobs, patience
from outbox.database.ask import changed_by, row_of, rows_of
from outbox.dead_letters import unknown_type
from outbox.handlers.pause import handler_statuses
from outbox.kafka import admin
from outbox.kafka.admin import TopicState
from outbox.lanes import pause
from outbox.models import HandlerControl, OperatorAction
from outbox.upkeep import gauges
from outbox.upkeep.gauges import Backlog, LetterCount
from outbox.watching import Hop

__all__ = ["ENOUGH", "Database", "FromPostgres", "HandlerRow", "ask_kafka", "ask_postgres"]

ENOUGH = 10_000  # every count ends here
OLDEST_PER_LANE = 50
LETTERS_GROUPED = 1_000
LETTERS_OF_APPS = 200  # of each app, the oldest
ACTIONS_SHOWN = 10
AUDIT_ROWS = 5_000
ANSWER_SECONDS = 3.0  # for one whole reading
STATEMENT_MS = 1500
KAFKA_SECONDS = 2.0
_OPEN_TRANSACTION = """
    SELECT extract(epoch FROM clock_timestamp() - since)::float, who FROM (
        SELECT xact_start AS since,
               coalesce(application_name, '') || ', pid ' || pid || ', ' || coalesce(state, '') AS who
        FROM pg_stat_activity
        WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'
          AND datname = current_database()
        UNION ALL
        SELECT prepared, 'prepared as ' || gid FROM pg_prepared_xacts WHERE database = current_database()
    ) AS open ORDER BY since LIMIT 1
"""
_SNAPSHOT = """
    SELECT since, who FROM (
        SELECT age(backend_xmin) AS since, 'pid ' || pid AS who FROM pg_stat_activity
        WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
        UNION ALL SELECT age(transaction), 'prepared as ' || gid FROM pg_prepared_xacts
        UNION ALL SELECT greatest(age(xmin), age(catalog_xmin)), 'replication slot ' || slot_name
                  FROM pg_replication_slots
    ) AS held WHERE since IS NOT NULL ORDER BY since DESC LIMIT 1
"""
_SERVER = """
    SELECT current_setting('server_version'),
           extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float,
           pg_database_size(current_database()),
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
           current_setting('max_connections')::int,
           (SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()),
           (SELECT coalesce(reltuples, 0)::bigint FROM pg_class
            WHERE oid = to_regclass('event_outbox_pending')),
           coalesce(pg_sequence_last_value(
               pg_get_serial_sequence('event_outbox', 'id')::regclass), 0),
           pg_stat_get_tuples_updated('event_outbox'::regclass),
           coalesce(pg_sequence_last_value(
               pg_get_serial_sequence('dead_letter', 'id')::regclass), 0),
           has_function_privilege('pg_ls_waldir()', 'execute')
"""
_WAL = "SELECT sum(size)::bigint FROM pg_ls_waldir()"
# For each replication slot, how much of the log is kept for it and how much more may be.
_SLOTS = """
    SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint, safe_wal_size
    FROM pg_replication_slots WHERE restart_lsn IS NOT NULL ORDER BY restart_lsn LIMIT 20
"""
# Once a segment could not be archived, it and all behind it stay, until one is archived again.
_ARCHIVER = """
    SELECT failed_count, extract(epoch FROM clock_timestamp() - last_failed_time)::float,
           extract(epoch FROM clock_timestamp() - coalesce(last_archived_time, stats_reset))::float
    FROM pg_stat_archiver
    WHERE last_failed_time > coalesce(last_archived_time, '-infinity')
      AND current_setting('archive_mode') <> 'off'
"""
_MISSING = """
    SELECT handler, count(*) FROM unnest(%s::text[]) AS of (handler) CROSS JOIN LATERAL (
        SELECT state FROM audit_open WHERE audit_open.handler = of.handler
        ORDER BY outbox_id LIMIT %s) AS oldest
    WHERE oldest.state = ANY(%s) GROUP BY handler
"""
_POSITIONS = """
    SELECT handler, topic, "partition", next_offset, last_error
    FROM unnest(%s::text[]) AS of (name) CROSS JOIN LATERAL (
        SELECT handler, topic, "partition", next_offset, last_error FROM bridge_position
        WHERE handler = of.name ORDER BY handler, topic, "partition" LIMIT %s) AS known
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerRow:
    """What PostgreSQL knows about one handler; times are seconds. `positions`: (topic, partition) -> next
    offset, None if there are more than ENOUGH; `canary`: age of the newest canary that it passed, None if it is
    paused or none was sent."""

    status: HandlerControl
    positions: Mapping[tuple[str, int], int] | None
    last_error: str
    oldest: float
    paused_for: float
    missing: int
    audit_behind: float
    canary: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The server. Seconds, bytes, transactions; `open_transaction`: age of the oldest, and whose;
    `snapshot_of`: who holds the oldest snapshot; `wal`: size of pg_wal, None if this login may not see it.
    `slots`: (name, bytes of log kept, bytes that may still come or None). `archiver`: how often archive_command has
    failed, how long ago the last time, and for how long it has archived nothing; None while it does its work."""

    version: str
    up: float
    size: int
    sessions: int
    most_sessions: int
    frozen_age: int
    snapshot_age: int
    open_transaction: tuple[float, str]
    slots: Sequence[tuple[str, int, int | None]]
    archiver: tuple[int, float, float] | None = None
    snapshot_of: str = ""
    wal: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FromPostgres:
    """One reading. `failed`: app that could not be read -> reason."""

    server: Database
    hops: Sequence[Hop]
    handlers: Sequence[HandlerRow]
    letters: Sequence[LetterGroup]
    actions: Sequence[OperatorAction]
    failed: Mapping[str, str]
    past: Past = NOTHING


def ask_postgres(backlog: Backlog, past: PastReader | None = None) -> FromPostgres:
    """Read all of it within three seconds, and the last day through `past`. Raises DatabaseError or
    InterfaceError."""
    with patience.within(ANSWER_SECONDS):
        changed_by(f"SET statement_timeout = '{STATEMENT_MS}ms'")
        server = row_of(_SERVER)
        backlog.refresh()
        failed: dict[str, str] = {}
        return FromPostgres(
            server=_database(server),
            hops=[
                *_outbox(backlog, about=server[6], last_id=server[7], settled=server[8]),
                *_letters(written=server[9]),
                _upkeep(),
                *_hops_of_apps(failed),
            ],
            handlers=_handlers(),
            letters=[*letter_groups(LETTERS_GROUPED), *_letters_of_apps(failed)],
            actions=operator_log.newest(ACTIONS_SHOWN),
            failed=failed,
            past=past.read() if past is not None else NOTHING,
        )


def _database(row: Sequence[Any]) -> Database:
    version, up, size, sessions, most, frozen, *_, may_see_wal = row
    snapshot_age, snapshot_of = row_of(_SNAPSHOT) or (0, "")
    return Database(
        version=version,
        up=up,
        size=size,
        sessions=sessions,
        most_sessions=most,
        frozen_age=frozen,
        snapshot_age=snapshot_age,
        snapshot_of=snapshot_of,
        open_transaction=row_of(_OPEN_TRANSACTION) or (0.0, ""),
        slots=rows_of(_SLOTS),
        archiver=row_of(_ARCHIVER),
        wal=row_of(_WAL)[0] if may_see_wal else None,
    )


def _outbox(backlog: Backlog, *, about: int, last_id: int, settled: int) -> list[Hop]:
    """`settled`: changes of rows; a drain changes each row once, when Kafka has acknowledged or refused it."""
    pending, oldest = backlog.pending(ENOUGH)
    lanes = pause.lane_states(counted=0)
    paused = [lane for lane in lanes if lane.paused]
    notes = (
        [f"about {about:,} by the last ANALYZE"] if pending >= ENOUGH and about > pending else []
    )
    if paused:
        notes.append(f"lanes paused by {paused[0].by}: {paused[0].reason or 'no reason given'}")
    return [
        Hop(
            name="accepted",
            group="pipeline",
            done=last_id,
            notes=("nothing waits here: what is committed waits in the outbox",),
            page="/admin/outbox/outboxevent/",
        ),
        Hop(
            name="outbox",
            group="pipeline",
            waits=pending,
            counted=ENOUGH,
            oldest=oldest,
            done=settled,
            figures={
                "outbox_pending_events": pending,
                "outbox_oldest_pending_seconds": oldest,
                "outbox_held_events": gauges.held_events(),
                "outbox_unclaimable_events": backlog.unclaimable(OLDEST_PER_LANE),
                "outbox_lanes_paused": len(paused),
                "outbox_lane_held_seconds": max((lane.held_seconds for lane in lanes), default=0.0),
            },
            since={"outbox_lanes_paused": max((_age(lane.at) for lane in paused), default=0.0)},
            notes=tuple(notes),
            page="/admin/outbox/outboxlane/"
            if paused
            else "/admin/outbox/outboxevent/?waiting=yes",
        ),
    ]


def _age(moment: datetime | None) -> float:
    return (datetime.now(UTC) - moment).total_seconds() if moment else 0.0


def _handlers() -> list[HandlerRow]:
    routes = conf.routes()
    names = [route.handler for route in routes]
    ages = gauges.oldest_unapplied()
    canaries = canary.ages() if settings.CANARY else {}
    missing = dict(rows_of(_MISSING, (names, AUDIT_ROWS, [reason.value for reason in MISSING])))
    positions: dict[str, dict[tuple[str, int], int]] = {name: {} for name in names}
    errors = dict.fromkeys(names, "")
    for handler, topic, partition, offset, error in rows_of(_POSITIONS, (names, ENOUGH + 1)):
        positions[handler][topic, partition] = offset
        errors[handler] = errors[handler] or error
    return [
        HandlerRow(
            status=status,
            positions=known if len(known := positions[status.handler]) <= ENOUGH else None,
            last_error=errors[status.handler][:ERROR_SHOWN],
            oldest=ages.get(status.handler, 0.0),
            paused_for=_age(status.changed_at) if status.paused else 0.0,
            missing=missing.get(status.handler, 0),
            audit_behind=behind_seconds(status.handler),
            canary=canaries.get(status.handler),
        )
        for status in handler_statuses(names)
    ]


def _letters(*, written: int) -> list[Hop]:
    """First all of them, with the rate at which they are written, then those of each handler that has some."""
    unknown: dict[str, int] = {}
    for (handler, _, _), letters in unknown_type.count_open(ENOUGH).items():
        unknown[handler] = unknown.get(handler, 0) + letters
    found: dict[str, list[LetterCount]] = {}
    for each in gauges.open_letters(ENOUGH):
        found.setdefault(each.handler, []).append(each)
    hops = [_of_letters(handler, counts, unknown) for handler, counts in sorted(found.items())]
    written_so_far = Hop(
        name="written",
        group="dead letters",
        waits=None if hops else 0,
        oldest=None if hops else 0.0,
        done=written,
        unit="letters",
        notes=("what is open stands at its handler",) if hops else ("none is open",),
        page="/admin/outbox/deadletter/",
    )
    return [written_so_far, *hops]


def _of_letters(handler: str, counts: Sequence[LetterCount], unknown: Mapping[str, int]) -> Hop:
    oldest = max(each.oldest_seconds for each in counts)
    by_state = ", ".join(f"{each.letters:,} {each.state}" for each in counts)
    figures = {f'dead_letters_open{{state="{each.state}"}}': each.letters for each in counts}
    return Hop(
        name="refused by Kafka" if handler == DRAIN_HANDLER else handler,
        group="dead letters",
        waits=sum(each.letters for each in counts),
        counted=ENOUGH,
        oldest=oldest,
        unit="letters",
        figures={
            **figures,
            "dead_letters_oldest_seconds": oldest,
            "dead_letters_unknown_type": unknown.get(handler, 0),
        },
        notes=(by_state, "the rate of all handlers is at: written"),
        page="/admin/outbox/deadletter/?open=dead",
    )


def _upkeep() -> Hop:
    ages = {job: age for job, age in jobs.ages().items() if ":" not in job}
    figures = {f'upkeep_last_done_seconds{{job="{job}"}}': age for job, age in ages.items()}
    return Hop(
        name="upkeep",
        group="upkeep",
        unit="jobs",
        figures=figures,
        page="/admin/outbox/upkeepmark/",
    )


def _letters_of_apps(failed: dict[str, str]) -> list[LetterGroup]:
    """What they keep in rows of their own; again, one hides no other."""
    found: list[LetterGroup] = []
    for source in conf.letter_sources():
        with _noted(source.name, failed):
            found += groups_of(source, LETTERS_OF_APPS)
    return found


@contextmanager
def _noted(app: str, failed: dict[str, str]) -> Iterator[None]:
    """That the app could not be read; a connection that is lost is everybody's."""
    try:
        yield
    except DatabaseError as error:
        if not connection.is_usable():
            raise
        failed[app] = str(error).splitlines()[0]


def _hops_of_apps(failed: dict[str, str]) -> list[Hop]:
    """The hops of the apps. An app that cannot be read is noted in `failed` and does not hide the others."""
    hops: list[Hop] = []
    for dotted in settings.WIRING.hops:
        with _noted(dotted.partition(".")[0], failed):
            hops += import_string(dotted)()
    return hops


def ask_kafka() -> Mapping[str, TopicState]:
    """Each topic that the drain sends to, with the first and the next offset of its partitions. Raises
    KafkaUnavailable, within two seconds if no broker answers."""
    admin.ping(KAFKA_SECONDS)
    return admin.topic_states([topic.name for topic in conf.all_topics()])
