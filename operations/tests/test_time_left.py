"""What ends badly by itself: when it is a line, how long it says, and when it is amber and red."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from django.db import connection

from devtools.localstack.logins import Installation
from devtools.localstack.postgres import embedded_postgres
from devtools.localstack.redis import redis_binary
from devtools.localstack.state import ephemeral_state
from devtools.localstack.warden import remove
from devtools.testing.pipeline import settles
from devtools.testing.processes import free_port
from operations.broker import FromRedis, ask_redis
from operations.judge import Judge
from operations.pipeline import (
    _ARCHIVER,
    _OPEN_TRANSACTION,
    _SNAPSHOT,
    Database,
    FromPostgres,
    HandlerRow,
    ask_postgres,
)
from operations.tests.well import snapshot
from operations.time_left import Deadline, deadlines
from outbox.conf import routes
from outbox.models import HandlerControl
from outbox.process.heartbeat import Said, SeenProcess
from outbox.upkeep.gauges import Backlog
from outbox.watching import AMBER, GREEN, GREY, RED, State

GIB = 2**30
MIB = 2**20


def database(**more: Any) -> FromPostgres:
    fields: dict[str, Any] = {
        "version": "18",
        "up": 1.0,
        "size": 1,
        "sessions": 1,
        "most_sessions": 100,
        "frozen_age": 0,
        "snapshot_age": 0,
        "open_transaction": (0.0, ""),
        "slots": (),
    }
    return FromPostgres(
        server=Database(**(fields | more)), hops=(), handlers=(), letters=(), actions=(), failed={}
    )


def broker(*processes: Said, memory: int = 0, limit: int = 0) -> FromRedis:
    return FromRedis(
        processes=[SeenProcess(said=said, age=0.0) for said in processes],
        kinds=frozenset(),
        queues={},
        version="8",
        up=1.0,
        memory=memory,
        limit=limit,
        policy="noeviction",
    )


def process(free: int, total: int = 100 * GIB, **figures: float) -> Said:
    return Said(
        kind="relay",
        name="relay",
        host="h1",
        pid=1,
        release="1",
        up=1.0,
        memory=1,
        disk=(free, total),
        figures=figures,
    )


def named(name: str, found: list[Deadline]) -> Deadline | None:
    return next((each for each in found if each.name.startswith(name)), None)


def one(
    name: str, postgres: FromPostgres | None = None, redis: FromRedis | None = None
) -> Deadline | None:
    return named(name, deadlines(postgres, redis, Judge(()), at=1000.0))


def state_of(found: Deadline | None) -> State | None:
    return None if found is None else found.state


@pytest.mark.parametrize(
    ("age", "state"), [(59.0, None), (61.0, GREEN), (599.0, GREEN), (601.0, AMBER)]
)
def test_a_transaction_that_stays_open(age: float, state: State | None) -> None:
    found = one("oldest transaction", database(open_transaction=(age, "psql, pid 7, idle")))
    assert state_of(found) == state
    assert found is None or "psql, pid 7, idle" in found.standing


@pytest.mark.parametrize(("age", "state"), [(10_000_000, None), (10_000_001, AMBER)])
def test_a_snapshot_that_many_transactions_have_passed(age: int, state: State | None) -> None:
    assert state_of(one("oldest snapshot", database(snapshot_age=age))) == state


@pytest.mark.parametrize(
    ("used", "state"), [(0.1, GREEN), (0.49, GREEN), (0.51, AMBER), (0.76, RED)]
)
def test_transaction_ids(used: float, state: State) -> None:
    assert state_of(one("transaction ids", database(frozen_age=round(used * 2**31)))) == state


@pytest.mark.parametrize(
    ("kept", "more", "state"),
    [
        *((1, 9, GREEN), (6, 4, AMBER), (8, 2, RED), (12, -1, RED)),
        *((7, None, GREEN), (9, None, AMBER), (13, None, RED), (50, None, RED)),
    ],
)
def test_log_that_is_kept_for_a_replica(kept: int, more: int | None, state: State) -> None:
    slots = [("replica", kept * GIB, None if more is None else more * GIB)]
    found = one("replication slot replica", database(slots=slots))
    assert state_of(found) == state


@pytest.mark.parametrize(
    ("gib", "mib_a_minute", "state"),
    [(1, 0, GREEN), (1, 10, GREEN), (1, 300, AMBER), (1, 1_000, RED), (50, 0, RED)],
)
def test_the_trend_of_log_without_a_bound(gib: int, mib_a_minute: int, state: State) -> None:
    """So much is kept at first; the trend is seen for six minutes."""
    judge = Judge(())
    for minute in range(7):
        slots = [("replica", gib * GIB + minute * mib_a_minute * MIB, None)]
        found = deadlines(database(slots=slots), None, judge, at=1000.0 + 60 * minute)
    assert state_of(named("replication slot replica", found)) == state


@pytest.mark.parametrize(("free", "state"), [(50, GREEN), (13, GREEN), (12, AMBER), (6, RED)])
def test_a_disk_that_fills(free: int, state: State) -> None:
    assert state_of(one("disk of h1", redis=broker(process(free * GIB)))) == state


@pytest.mark.parametrize(
    ("mib_a_minute", "state"), [(0, GREEN), (100, GREEN), (1_000, AMBER), (6_000, RED)]
)
def test_the_trend_of_a_disk(mib_a_minute: int, state: State) -> None:
    """50 GiB are free at first; the trend is seen for six minutes."""
    judge, found = Judge(()), None
    for minute in range(7):
        free = 50 * GIB - minute * mib_a_minute * MIB
        found = named(
            "disk", deadlines(None, broker(process(free)), judge, at=1000.0 + 60 * minute)
        )
    assert found is not None
    if not mib_a_minute:
        assert found.left is None
    else:
        assert found.left == pytest.approx((50 * 1024 / mib_a_minute - 6) * 60)
    assert found.state == state


def test_no_time_is_made_of_a_trend_that_was_seen_for_less_than_five_minutes() -> None:
    judge, found = Judge(()), None
    for minute in range(5):
        free = (50 - 9 * minute) * GIB
        found = named(
            "disk", deadlines(None, broker(process(free)), judge, at=1000.0 + 60 * minute)
        )
    assert found is not None
    assert found.left is None


@pytest.mark.parametrize(("used", "state"), [(50, GREEN), (88, AMBER), (94, RED)])
def test_the_memory_of_redis(used: int, state: State) -> None:
    assert state_of(one("memory of Redis", redis=broker(memory=used, limit=100))) == state


def test_what_has_no_end_is_named_and_does_not_colour_the_page() -> None:
    server = broker(process(50 * GIB, relay_dead_letter_queue_messages=5.0), memory=50 * MIB)
    memory = one("memory of Redis", redis=server)
    dead = one("dead letters of the relay", redis=server)
    assert memory is not None
    assert dead is not None
    assert {(each.state, each.has_end) for each in (memory, dead)} == {(GREY, False)}
    assert memory.standing == "50 MiB are used, no bound (maxmemory)"
    assert dead.standing.startswith("5 lie in RabbitMQ")
    assert one("dead letters of the relay", redis=broker(process(50 * GIB))) is None
    found = snapshot(Judge(()))
    assert "memory of Redis" in {each.name for each in found.deadlines if not each.has_end}
    assert found.state == GREEN


@pytest.mark.parametrize(
    ("seconds", "state"), [(59.0, None), (61.0, GREEN), (901.0, AMBER), (1351.0, RED)]
)
def test_the_consumer_timeout_of_rabbitmq(seconds: float, state: State | None) -> None:
    said = process(50 * GIB, oldest_unacked_seconds=seconds)
    found = one("RabbitMQ's consumer timeout", redis=broker(said))
    assert state_of(found) == state
    assert found is None or found.left == pytest.approx(1800 - seconds)


@pytest.mark.parametrize(
    ("paused", "share", "state"),
    [(True, 0.0, AMBER), (True, 0.6, AMBER), (True, 0.8, RED), (False, 0.8, RED)],
)
def test_a_handler_against_the_retention_of_its_topic(
    paused: bool, share: float, state: State
) -> None:
    route = routes()[0]
    kept = route.topic.retention_hours * 3600
    status = HandlerControl(
        handler=route.handler, paused=paused, changed_by="a", changed_at=datetime.now(UTC)
    )
    row = HandlerRow(
        status=status,
        positions={},
        last_error="",
        oldest=share * kept,
        paused_for=0.0,
        missing=0,
        audit_behind=0.0,
        canary=None,
    )
    postgres = FromPostgres(
        server=database().server, hops=(), handlers=[row], letters=(), actions=(), failed={}
    )
    found = one(route.handler, postgres)
    assert found is not None
    assert found.state == state
    assert found.left == pytest.approx((1 - share) * kept)


def test_what_ends_first_stands_first() -> None:
    said = process(50 * GIB, oldest_unacked_seconds=100.0)
    found = snapshot(Judge(()), from_redis=broker(said)).deadlines
    assert found[0].name == "RabbitMQ's consumer timeout"
    assert all(each.ends for each in found)


@pytest.fixture
def other() -> Iterator[psycopg.Connection]:
    """A session of somebody else in the same database."""
    options = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    with psycopg.connect(
        **{name: options[name] for name in names if name in options},
        application_name="a report",
    ) as session:
        yield session


@pytest.mark.django_db(transaction=True)
def test_postgresql_says_whose_transaction_is_open(other: psycopg.Connection) -> None:
    other.execute("SELECT txid_current()")
    age, who = ask_postgres(Backlog()).server.open_transaction
    assert age > 0
    assert who.startswith("a report, pid ")


@pytest.mark.django_db
def test_postgresql_says_how_large_its_log_is() -> None:
    wal = ask_postgres(Backlog()).server.wal
    assert wal
    assert wal % MIB == 0


@pytest.mark.parametrize(("nothing", "state"), [(61.0, AMBER), (3599.0, AMBER), (3601.0, RED)])
def test_an_archive_command_that_fails(nothing: float, state: State) -> None:
    assert one("archive of the log", database()) is None
    found = one("archive of the log", database(archiver=(7, 20.0, nothing)))
    assert found is not None
    assert found.state == state
    assert "has failed 7 times, last 20 s ago" in found.standing


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[tuple[psycopg.Connection, Path]]:
    """A PostgreSQL that cannot archive until this file is there. It takes prepared transactions and slots."""
    state = ephemeral_state()
    needed: list[Path] = []

    def wanted(installation: Installation) -> Mapping[str, str]:
        needed.append(installation.data / "may-archive")
        command = f"test -e {shlex.quote(str(needed[0]))}"
        settings = {"archive_mode": "on", "archive_command": command}
        return settings | {"max_prepared_transactions": "1", "wal_level": "logical"}

    server = embedded_postgres(state, free_port(), os.environ, ephemeral=True, prepare=wanted)
    assert server.unit is not None
    server.unit.start()
    try:
        server.unit.wait_ready(120)
        server.after_ready()
        with psycopg.connect(server.environment["DATABASE_URL"], autocommit=True) as session:
            yield session, needed[0]
    finally:
        server.unit.stop()
        remove(str(server.unit.program.directory))  # may lie in the temp folder
        remove(str(state.root))


def test_postgresql_says_whether_its_archive_command_fails(
    own_postgres: tuple[psycopg.Connection, Path],
) -> None:
    session, needed = own_postgres

    def archiver() -> Any:
        return session.execute(_ARCHIVER).fetchone()

    def written() -> None:
        session.execute("SELECT txid_current()")
        session.execute("SELECT pg_switch_wal()")

    assert archiver() is None
    written()
    assert settles(lambda: archiver() is not None)
    failures, last, nothing = archiver()
    assert failures >= 1
    assert 0 <= last <= nothing
    needed.touch()
    written()  # so that it tries again now
    assert settles(lambda: archiver() is None)


def test_what_holds_old_rows_without_a_session_is_found(
    own_postgres: tuple[psycopg.Connection, Path],
) -> None:
    session, _ = own_postgres

    def held() -> list[Any]:
        found = [session.execute(sql).fetchone() for sql in (_OPEN_TRANSACTION, _SNAPSHOT)]
        return [row and row[1] for row in found]

    assert settles(lambda: held()[0] is None)
    session.execute("BEGIN")
    session.execute("SELECT txid_current()")
    session.execute("PREPARE TRANSACTION 'forgotten'")
    assert held()[0] == "prepared as forgotten"
    assert settles(lambda: held()[1] == "prepared as forgotten")
    session.execute("ROLLBACK PREPARED 'forgotten'")
    session.execute("SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')")
    session.execute("SELECT txid_current()")
    assert settles(lambda: held() == [None, "replication slot left_behind"])
    session.execute("SELECT pg_drop_replication_slot('left_behind')")
    assert settles(lambda: held()[1] is None)


@contextmanager
def own_redis(directory: Path, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its address, and its process."""
    port = free_port()
    binary, _ = redis_binary(os.environ)
    command = [binary, "--port", str(port), "--dir", str(directory), "--save", "", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            url = f"redis://127.0.0.1:{port}/0"
            assert settles(lambda: answers(url))
            yield url, process
        finally:
            process.kill()


def answers(url: str) -> bool:
    with suppress(redis.RedisError), redis.Redis.from_url(url) as server:
        return bool(server.ping())
    return False


def lines() -> dict[str, Deadline]:
    """Of the memory of each Redis, as they say it now."""
    found = deadlines(None, ask_redis(), Judge(()), at=1000.0)
    return {each.name: each for each in found if each.name.startswith("memory of Redis")}


CLAIMS, CACHE = "memory of Redis of the relay's claims", "memory of Redis of the feed cache"


def test_the_other_servers_of_redis_have_lines_of_their_own(tmp_path: Path, settings: Any) -> None:
    assert not lines().keys() & {CLAIMS, CACHE}, "all are the broker's"
    with own_redis(tmp_path, "--maxmemory", "100mb") as (url, process):
        settings.FEED_CACHE_URL = url
        assert lines()[CACHE].state == GREEN
        settings.RELAY = settings.RELAY | {"dedupe_url": f"{url[:-1]}1"}
        assert lines().keys() >= {CLAIMS}
        assert CACHE not in lines(), "it is the same server"
        with redis.Redis.from_url(url) as server:
            assert lines()[CLAIMS].state == GREEN
            server.config_set("maxmemory", int(server.info()["used_memory"] * 1.05))
            assert lines()[CLAIMS].state in {AMBER, RED}
            assert "publishes repetitions" in lines()[CLAIMS].ends
            settings.RELAY = settings.RELAY | {"dedupe_url": settings.REDIS_URL}
            assert lines()[CACHE].state in {AMBER, RED}
            server.config_set("maxmemory-policy", "allkeys-lru")
            assert CACHE not in lines(), "a cache that makes room is meant to be full"
        process.kill()
        process.wait()
        assert lines()[CACHE].state == GREY
        assert "is unavailable" in lines()[CACHE].standing
