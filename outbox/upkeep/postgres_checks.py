"""The checks of PostgreSQL: its settings, the sessions of this program, and the rows that the platform needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper

from outbox import conf
from outbox.database.ask import row_of, rows_of
from outbox.topics import LANES
from outbox.upkeep.check_result import CheckResult, judge

__all__ = ["advice_on", "check_pooler", "check_postgresql", "check_standbys"]

# A pattern of libpq's error -> what to do. The first match counts.
_SAID = (
    (r"no encryption|SSL off", "PostgreSQL requires TLS. Add sslmode=verify-full to DATABASE_URL."),
    (
        r"does not support SSL",
        "PostgreSQL does not speak TLS, and sslmode in DATABASE_URL requires it. Change one of the two.",
    ),
    (
        r"does not match host name|mismatch",
        "The certificate of PostgreSQL is for another host name. Use that name in DATABASE_URL.",
    ),
    (
        r"certificate verify failed|root certificate file",
        "The file of sslrootcert in DATABASE_URL lacks the authority that signed the certificate of PostgreSQL.",
    ),
    (
        r"certificate|private key",
        "PostgreSQL refuses the client certificate. Correct sslcert and sslkey in DATABASE_URL.",
    ),
    (
        r"authentication failed|no password supplied|role .* does not exist",
        "PostgreSQL refuses the user or password of DATABASE_URL. Correct them.",
    ),
    (
        r"database .* does not exist",
        "The database that DATABASE_URL names does not exist. Create it, or correct the name.",
    ),
)


def advice_on(error: Exception) -> str:
    """What to do if PostgreSQL refuses the connection, by libpq's error."""
    for pattern, means in _SAID:
        if re.search(pattern, str(error), re.IGNORECASE):
            return means
    return "Start PostgreSQL, or wait until it answers."


def check_postgresql() -> Iterator[CheckResult]:
    """Everything about it. Raises what the database raises."""
    yield from _settings()
    yield from _defaults()
    yield _session()
    yield check_pooler(connection)
    yield from _counts()


_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")


def _settings() -> Iterator[CheckResult]:
    values = _current(_SETTINGS)
    for name, risk in (("fsync", "no-fsync"), ("full_page_writes", "torn-pages")):
        yield judge(
            "postgresql",
            f"{name} = {values[name]}",
            good=values[name] == "on",
            risk=risk,
            means=f"A crash of the server's machine may corrupt the whole database. Set {name} = on.",
        )
    commit = values["synchronous_commit"]
    [delay] = row_of("SELECT setting::int FROM pg_settings WHERE name = 'wal_writer_delay'")
    yield judge(
        "postgresql",
        f"synchronous_commit = {commit}",
        good=commit != "off",
        risk="asynchronous-commit",
        means=f"A crash loses the commits of the last {3 * delay} ms. Set synchronous_commit = on.",
    )
    yield check_standbys(values["synchronous_standby_names"], commit)


def _current(names: Sequence[str]) -> dict[str, str]:
    sql = "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS wanted (name)"
    return dict(rows_of(sql, (list(names),)))


def check_standbys(names: str, commit: str) -> CheckResult:
    """Whether COMMIT waits for a standby, by synchronous_standby_names and synchronous_commit."""
    waits = bool(names) and commit not in ("local", "off")
    return judge(
        "postgresql",
        f"synchronous_standby_names = '{names}'",
        good=waits,
        risk="single-postgresql",
        means="COMMIT waits for no standby. If the machine is lost, everything since the last backup is lost; after a "
        "failover, the commits that the standby had not received. Lost events that Kafka holds are "
        "then messages without a row. Set for example 'ANY 1 (a, b)' and synchronous_commit = on.",
    )


# Settings that the code needs and does not set: name, how the value must begin, what breaks otherwise.
_DEFAULTS = (
    ("server_encoding", "UTF8", "Texts of clients cannot be stored. Create the database with it."),
    ("DateStyle", "ISO", "Times cannot be read, so nothing is drained."),
    (
        "default_transaction_isolation",
        "read committed",
        "A statement after a lock would read a state from before the lock, and requests "
        "would fail that now wait for each other.",
    ),
    ("default_transaction_read_only", "off", "Nothing can be stored."),
)


def _defaults() -> Iterator[CheckResult]:
    """The check of settings that a database or role may change for every session (ALTER … SET)."""
    values = _current([name for name, _, _ in _DEFAULTS])
    for name, wanted, breaks in _DEFAULTS:
        yield judge(
            "postgresql",
            f"sessions: {name} = {values[name]}",
            good=values[name].startswith(wanted),
            risk="",
            means=f"{breaks} The code needs {name} = {wanted}: look for ALTER DATABASE … SET and "
            "ALTER ROLE … SET.",
        )


_ROUNDS = 4  # enough for a pooler that takes turns to give a session another server process


def check_pooler(first: BaseDatabaseWrapper) -> CheckResult:
    """The check that each session of this program has a server process of its own.

    A pooler in transaction mode gives a free one to each transaction: while a second session holds
    one, the first is served by several. Every statement has its own text, because prepared
    statements are lost there too.
    """
    second = first.copy()
    served: set[int] = set()
    try:
        for number in range(_ROUNDS):
            with first.cursor() as cursor:
                cursor.execute(f"SELECT pg_backend_pid() AS first_{number}")
                served.add(cursor.fetchone()[0])
                announced = cursor.connection.info.backend_pid
            second.set_autocommit(False)
            with second.cursor() as cursor:
                cursor.execute(f"SELECT pg_backend_pid() AS second_{number}")
            with first.cursor() as cursor:
                cursor.execute(f"SELECT pg_backend_pid() AS third_{number}")
                served.add(cursor.fetchone()[0])
            second.rollback()
            second.set_autocommit(True)
    finally:
        second.close()
    way = "directly" if served == {announced} else "through a pooler"
    return judge(
        "postgresql",
        f"sessions: connected {way}, server processes of one session: {len(served)}",
        good=len(served) == 1,
        risk="",
        means="A pooler in transaction mode mixes the settings, prepared statements and advisory locks "
        "of sessions, so jobs run twice or never. Set its pool_mode to session, or connect to "
        "PostgreSQL directly.",
    )


def _session() -> CheckResult:
    """The check of the options that sessions send when they begin, which a pooler may drop."""
    idle, lock, plans = (
        row[0]
        for row in rows_of(
            "SELECT setting FROM pg_settings WHERE name = ANY(%s) ORDER BY name",
            (["idle_in_transaction_session_timeout", "lock_timeout", "plan_cache_mode"],),
        )
    )
    return judge(
        "postgresql",
        f"sessions: idle_in_transaction_session_timeout = {idle}, lock_timeout = {lock},"
        f" plan_cache_mode = {plans}",
        good=0 < int(idle) < conf.DRAIN.task_time_limit * 1000
        and int(lock) > 0
        and plans == "force_custom_plan",
        risk="session-options",
        means="A frozen drain or worker keeps its lanes until its connection ends, and "
        "drains may read the whole outbox. Sessions send these options when they begin, and a "
        "pooler may ignore them. Set them with ALTER ROLE … SET.",
    )


def _counts() -> Iterator[CheckResult]:
    """The check of the numbers of lanes and partitions in the database: other numbers would move keys
    (guarantees.md#r2)."""
    lanes = {lane for (lane,) in rows_of("SELECT lane FROM outbox_lane")}
    rows = rows_of(
        'SELECT handler, topic, array_agg("partition") FROM bridge_position GROUP BY handler, topic'
    )
    positions = {(handler, topic): set(found) for handler, topic, found in rows}
    yield judge(
        "postgresql",
        f"{len(lanes)} lanes",
        good=lanes == set(range(LANES)),
        risk="",
        means=f"The code expects {LANES}, and the order of keys depends on it. Set LANES back to the number in outbox_lane.",
    )
    for route in conf.routes():
        found = positions.get((route.handler, route.topic.name), set())
        yield judge(
            "postgresql",
            f"{route.handler}: {len(found)} positions",
            good=found >= set(range(route.topic.partitions)),
            risk="",
            means=f"{route.topic.name} has {route.topic.partitions} partitions: "
            "run manage.py sync_routes.",
        )
