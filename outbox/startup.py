"""Whether the servers keep what they promise (rules R2 and R21): one readable report.

A violation is an error where OUTBOX_STRICT_SERVERS is set (production) and a warning elsewhere; one
whose risk is accepted by name (ACCEPTED_RISKS) is a warning everywhere. What would break the order
of keys cannot be accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import redis
from django.conf import settings
from django.db import connection

from outbox import conf
from outbox.kafka import admin
from outbox.kafka.admin import TopicConfig
from outbox.topics import LANES, Topic

__all__ = ["Level", "Result", "check_servers"]

REPLICAS = 3
MIN_INSYNC = 2


class Level(StrEnum):
    """How a result counts."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report. `risk` is the name by which a violation can be accepted, empty if it
    cannot be; `means` says what can be lost and what to do, empty if all is well."""

    level: Level
    server: str
    found: str
    risk: str = ""
    means: str = ""


def check_servers() -> list[Result]:
    """Ask all servers. A server that does not answer is an error of its own."""
    strict = settings.OUTBOX_STRICT_SERVERS
    accepted = set(settings.OUTBOX_ACCEPTED_RISKS)
    results = [*_postgresql(), _session(), *_counts(), *_kafka(), *_redis()]
    known = {result.risk for result in results} - {""}
    graded = [_graded(result, strict=strict, accepted=accepted) for result in results]
    graded += [
        Result(
            Level.WARNING, "settings", f"ACCEPTED_RISKS names {name}", means="No such risk here."
        )
        for name in sorted(accepted - known)
    ]
    return graded


def _graded(result: Result, *, strict: bool, accepted: set[str]) -> Result:
    if result.level is Level.OK or not result.risk:
        return result
    if result.risk in accepted:
        means = f"Accepted as {result.risk}: {result.means}"
        return replace(result, level=Level.WARNING, means=means)
    return result if strict else replace(result, level=Level.WARNING)


def _judge(server: str, found: str, *, good: bool, risk: str, means: str) -> Result:
    if good:
        return Result(Level.OK, server, found, risk)
    return Result(Level.ERROR, server, found, risk, means)


# -- PostgreSQL ----------------------------------------------------------------------------------

_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")


def _postgresql() -> Iterator[Result]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS wanted (name)"
            " UNION ALL SELECT 'wal_writer_delay', setting FROM pg_settings"
            " WHERE name = 'wal_writer_delay'",
            (list(_SETTINGS),),
        )
        values: dict[str, str] = dict(cursor.fetchall())
    for name, risk in (("fsync", "no-fsync"), ("full_page_writes", "torn-pages")):
        yield _judge(
            "postgresql",
            f"{name} = {values[name]}",
            good=values[name] == "on",
            risk=risk,
            means=f"A crash of its machine may corrupt the whole database. Set {name} = on.",
        )
    commit = values["synchronous_commit"]
    window = 3 * int(values["wal_writer_delay"])
    yield _judge(
        "postgresql",
        f"synchronous_commit = {commit}",
        good=commit != "off",
        risk="asynchronous-commit",
        means=f"A crash loses what was committed in the last {window} ms. Set it to on.",
    )
    yield _quorum(values["synchronous_standby_names"], commit)


def _quorum(names: str, commit: str) -> Result:
    waits = bool(names) and commit not in ("local", "off")
    return _judge(
        "postgresql",
        f"synchronous_standby_names = '{names}'",
        good=waits,
        risk="single-postgresql",
        means="COMMIT waits for no standby: losing the machine loses all since its last backup, a "
        "failover what the standby has not received yet. Events already in Kafka are then found "
        "as messages without a row. Set for example 'ANY 1 (a, b)' and synchronous_commit = on.",
    )


def _session() -> Result:
    """What our own sessions ask for when they begin, and a pooler in between may drop."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT setting FROM pg_settings WHERE name = ANY(%s) ORDER BY name",
            (["idle_in_transaction_session_timeout", "lock_timeout", "plan_cache_mode"],),
        )
        idle, lock, plans = (row[0] for row in cursor.fetchall())
    return _judge(
        "postgresql",
        f"our sessions: idle_in_transaction_session_timeout = {idle}, lock_timeout = {lock},"
        f" plan_cache_mode = {plans}",
        good=0 < int(idle) < conf.DRAIN.task_time_limit * 1000
        and int(lock) > 0
        and plans == "force_custom_plan",
        risk="session-options",
        means="A drain or a worker that has frozen keeps its lanes until its connection ends, and "
        "drains may read the whole outbox. They are asked for when a session begins: a pooler that "
        "ignores `options` takes them away. Set them by ALTER ROLE … SET.",
    )


def _counts() -> Iterator[Result]:
    """Lanes and partitions as the database has them: another number would move keys (rule R2)."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT lane FROM outbox_lane")
        lanes = {row[0] for row in cursor.fetchall()}
        cursor.execute(
            "SELECT handler, topic, count(*) FROM bridge_position GROUP BY handler, topic"
        )
        positions = {(handler, topic): count for handler, topic, count in cursor.fetchall()}
    yield _judge(
        "postgresql",
        f"{len(lanes)} lanes",
        good=lanes == set(range(LANES)),
        risk="",
        means=f"The code says {LANES}, and the order of keys depends on it: go back to that number.",
    )
    for route in conf.routes():
        count = positions.get((route.handler, route.topic.name), 0)
        yield _judge(
            "postgresql",
            f"{route.handler}: {count} positions",
            good=count == route.topic.partitions,
            risk="",
            means=f"{route.topic.name} has {route.topic.partitions} partitions: "
            "run manage.py sync_routes.",
        )


# -- Kafka ---------------------------------------------------------------------------------------


def _kafka() -> Iterator[Result]:
    wanted = conf.all_topics()
    try:
        found = admin.topic_configs([topic.name for topic in wanted])
    except admin.KafkaUnavailable as error:
        yield Result(Level.ERROR, "kafka", f"no answer: {error}", means="Start it, or wait for it.")
        return
    for topic in wanted:
        if topic.name in found:
            yield from _topic(topic, found[topic.name])
        else:
            yield Result(
                Level.ERROR,
                "kafka",
                f"{topic.name} does not exist",
                means="Run manage.py create_topics.",
            )


def _topic(topic: Topic, found: TopicConfig) -> Iterator[Result]:
    name = topic.name
    yield _judge(
        "kafka",
        f"{name}: {found.partitions} partitions",
        good=found.partitions == topic.partitions,
        risk="",
        means=f"The code says {topic.partitions}, and the order of keys depends on it.",
    )
    insync = _number(found.values, "min.insync.replicas")
    yield _judge(
        "kafka",
        f"{name}: {found.replicas} replicas, min.insync.replicas = {insync}",
        good=found.replicas >= REPLICAS and (insync or 0) >= MIN_INSYNC,
        risk="few-replicas",
        means="Losing one broker may lose what was published; what no handler had applied is then "
        f"found by the audit. Set {REPLICAS} replicas (KAFKA_REPLICATION_FACTOR, before the topic "
        f"is made) and min.insync.replicas = {MIN_INSYNC}.",
    )
    unclean = found.values.get("unclean.leader.election.enable", "false")
    yield _judge(
        "kafka",
        f"{name}: unclean.leader.election.enable = {unclean}",
        good=unclean == "false",
        risk="unclean-election",
        means="A replica that lags may become leader and cut off the end of the log. Set it to false.",
    )
    retention = _number(found.values, "retention.ms")
    yield _judge(
        "kafka",
        f"{name}: retention.ms = {retention}",
        good=retention == topic.retention_hours * 3_600_000,
        risk="other-retention",
        means=f"The code says {topic.retention_hours} h, and receipts and outbox are kept by it. "
        f"Set retention.ms = {topic.retention_hours * 3_600_000}, for example by manage.py "
        "create_topics --alter.",
    )
    segment = _number(found.values, "segment.ms")
    yield _judge(
        "kafka",
        f"{name}: segment.ms = {segment}",
        good=segment is not None and segment <= admin.SEGMENT_MS,
        risk="long-segments",
        means="Kafka deletes whole segments only, so a quiet topic keeps messages for so much longer "
        f"than its retention, and by then their receipts may be gone. Set segment.ms = "
        f"{admin.SEGMENT_MS}, for example by manage.py create_topics --alter.",
    )
    policy = found.values.get("cleanup.policy", "unknown")
    yield _judge(
        "kafka",
        f"{name}: cleanup.policy = {policy}",
        good=policy == "delete",
        risk="compacted",
        means="A compacted topic forgets earlier events of a key, whether they were applied or not. "
        "Set cleanup.policy = delete.",
    )
    size = _number(found.values, "max.message.bytes")
    yield _judge(
        "kafka",
        f"{name}: max.message.bytes = {size}",
        good=size is not None and size >= topic.max_message_bytes,
        risk="small-messages",
        means=f"The code lets events of {topic.max_message_bytes} bytes be published; what Kafka "
        f"refuses becomes a dead letter. Set max.message.bytes = {topic.max_message_bytes}.",
    )


def _number(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name, "")
    return int(text) if re.fullmatch(r"-?\d+", text) else None


# -- Redis ---------------------------------------------------------------------------------------


def _redis() -> Iterator[Result]:
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=5
        ) as client:
            memory: Mapping[str, object] = client.info("memory")
    except redis.RedisError as error:
        yield Result(Level.ERROR, "redis", f"no answer: {error}", means="Start it, or wait for it.")
        return
    policy = memory.get("maxmemory_policy", "unknown")
    yield _judge(
        "redis",
        f"maxmemory-policy = {policy}",
        good=policy == "noeviction",
        risk="redis-evicts",
        means="A full Redis forgets tasks in silence; chunks are sent again after their deadline, "
        "other tasks wait for beat. Set it to noeviction.",
    )
