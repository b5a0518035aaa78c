"""Deadlines: how long until a growing problem does harm, such as a full disk or events that Kafka deletes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from operations import words
from operations.broker import FEED_CACHE, FromRedis, OtherRedis
from operations.judge import GROWING_SECONDS, Judge, worst
from operations.pipeline import Database, FromPostgres
from outbox import conf
from outbox.watching import AMBER, GREEN, GREY, RED, State, TimeLeft

__all__ = ["Deadline", "deadlines"]

# https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout, the default of the broker.
RABBITMQ_CONSUMER_SECONDS = 1800
# https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND
TRANSACTION_IDS = 2**31
LONG = 60.0  # seconds; a younger transaction is not shown
OLD_TRANSACTION = 600.0
TREND_SECONDS = 300.0  # for which a trend must be known before a time is computed from it
LETTERS_QUEUED = "relay_dead_letter_queue_messages"
NOTHING_VACUUMED = "VACUUM removes nothing that it might still see: tables and indexes grow"
LONG_WITHOUT_ARCHIVE = 3_600.0
OLD_SNAPSHOT = 10_000_000  # transactions that began since the snapshot
# Of log that a slot without a bound may keep; how large the disk is, nobody says.
SLOT_BYTES = 16 * 2**30
NEAR, SOON = 0.5, 0.25  # with less than this share left, it is amber or red
# With so few seconds left by the trend, it is amber or red; few, because a burst of work has a trend too.
NEAR_SECONDS, SOON_SECONDS = 3_600.0, 600.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """One deadline. `left`: seconds, None if there is no trend towards it; `standing`: how far it is; `ends`:
    what happens then; `age`: seconds since its numbers were read; `reason`: why there are no newer ones;
    `has_end`: False if nobody can say how far it is, which does not colour the page."""

    name: str
    standing: str
    ends: str
    state: State = GREEN
    left: float | None = None
    age: float = 0.0
    reason: str = ""
    has_end: bool = True


def deadlines(
    postgres: FromPostgres | None, redis: FromRedis | None, judge: Judge, *, at: float
) -> list[Deadline]:
    """The known deadlines, in no order. `at`: when the numbers were read, as time.monotonic()."""
    found: list[Deadline] = []
    if postgres is not None:
        found += _handlers(postgres)
        found += _of_database(postgres.server, judge, at)
        found += [_of_hop(each) for hop in postgres.hops for each in hop.times]
    if redis is not None:
        found += _relay(redis)
        found += _disks(redis, judge, at)
        ends = "Redis takes no tasks; bridges and beat send them again later"
        found.append(_memory(redis, "memory of Redis", judge, at, ends=ends))
        found += [each for other in redis.others for each in _other_redis(other, judge, at)]
    return found


def _handlers(postgres: FromPostgres) -> Iterator[Deadline]:
    for row in postgres.handlers:
        kept = conf.route_named(row.status.handler).topic.retention_hours * 3600
        if not row.status.paused and row.oldest < LONG:
            continue
        left = kept - row.oldest
        yield Deadline(
            name=f"{row.status.handler}, {'paused' if row.status.paused else 'behind'}",
            left=left,
            standing=f"its oldest event is {words.span(row.oldest)} old, the topic keeps {words.span(kept)}",
            ends="Kafka deletes events that it has not applied; the command audit --repair applies them from the outbox",
            state=_of_share(left / kept) if left / kept < NEAR else AMBER,
        )


def _of_hop(time: TimeLeft) -> Deadline:
    left = max(0.0, time.left)
    return Deadline(time.name, time.standing, time.ends, _of_share(left / time.whole), left)


def _of_share(left: float) -> State:
    if left < SOON:
        return RED
    return AMBER if left < NEAR else GREEN


def _of_trend(left: float | None) -> State:
    if left is None or left > NEAR_SECONDS:
        return GREEN
    return AMBER if left > SOON_SECONDS else RED


def _of_database(server: Database, judge: Judge, at: float) -> Iterator[Deadline]:
    age, who = server.open_transaction
    if age > LONG:
        yield Deadline(
            name="oldest transaction",
            standing=f"open for {words.span(age)}: {who}",
            ends=NOTHING_VACUUMED,
            state=AMBER if age > OLD_TRANSACTION else GREEN,
        )
    if server.snapshot_age > OLD_SNAPSHOT:
        yield Deadline(
            name="oldest snapshot",
            standing=f"{server.snapshot_age:,} transactions have begun since: {server.snapshot_of}",
            ends=NOTHING_VACUUMED,
            state=AMBER,
        )
    left = 1 - server.frozen_age / TRANSACTION_IDS
    yield Deadline(
        name="transaction ids",
        standing=f"{left:.0%} of {TRANSACTION_IDS:,} are left",
        ends="PostgreSQL takes no more writes until a VACUUM has frozen old rows",
        state=_of_share(left),
    )
    if server.archiver is not None:
        failures, last, nothing = server.archiver
        yield Deadline(
            name="archive of the log",
            standing=f"archive_command has failed {failures:,} times, last {words.span(last)} ago; nothing was"
            f" archived for {words.span(nothing)}",
            ends="the log stays until the disk of the database is full; a restore ends before it",
            state=RED if nothing > LONG_WITHOUT_ARCHIVE else AMBER,
        )
    for name, kept, more in server.slots:
        yield _of_slot(name, kept, more, judge, at)


def _of_slot(name: str, kept: int, more: int | None, judge: Judge, at: float) -> Deadline:
    standing = f"{words.bytes_of(kept)} of log are kept for it"
    if more is None:
        more = SLOT_BYTES - kept
        standing += f", without a bound; judged as if {words.bytes_of(SLOT_BYTES)} were the most"
        ends = "the disk of the database is full, and it stops"
    else:
        standing += f", {words.bytes_of(more)} more at most"
        ends = "its replica can no longer follow, and begins from a new copy"
    more = max(0, more)
    left = _until_empty(judge, f"slot {name}", more, at)
    state = worst([_of_share(more / max(1, kept + more)), _of_trend(left)])
    return Deadline(f"replication slot {name}", standing, ends, state, left)


def _relay(redis: FromRedis) -> Iterator[Deadline]:
    ages = [
        (each.said.figures.get("oldest_unacked_seconds", 0.0), each.age) for each in redis.processes
    ]
    oldest, age = max(ages, default=(0.0, 0.0))
    if oldest > LONG:
        time = TimeLeft(
            name="RabbitMQ's consumer timeout",
            left=RABBITMQ_CONSUMER_SECONDS - oldest,
            whole=RABBITMQ_CONSUMER_SECONDS,
            standing=f"a relay has held a message for {words.span(oldest)}",
            ends="RabbitMQ closes the channel and delivers everything in hand again",
        )
        yield replace(_of_hop(time), age=age)
    kept, age = max(
        ((each.said.figures.get(LETTERS_QUEUED, 0.0), each.age) for each in redis.processes),
        default=(0.0, 0.0),
    )
    if kept:
        yield Deadline(
            name="dead letters of the relay",
            standing=f"{words.count(kept)} lie in RabbitMQ, and the relay gives them no end",
            ends="a TTL or length limit in a policy of RabbitMQ deletes the oldest; the relay cannot see policies",
            state=GREY,
            age=age,
            has_end=False,
        )


def _disks(redis: FromRedis, judge: Judge, at: float) -> Iterator[Deadline]:
    # The newest word of each host.
    hosts: Mapping[str, tuple[int, int, float]] = {
        each.said.host: (*each.said.disk, each.age)
        for each in sorted(redis.processes, key=lambda each: -each.age)
        if each.said.disk[1]
    }
    for host, (free, total, age) in sorted(hosts.items()):
        ends = "processes there cannot write logs, and servers that store data on it stop"
        yield replace(_of_space(f"disk of {host}", free, total, judge, at, ends=ends), age=age)


def _other_redis(other: OtherRedis, judge: Judge, at: float) -> Iterator[Deadline]:
    """A cache that evicts has no deadline: it is meant to be full."""
    name = f"memory of Redis of {other.name}"
    if other.error:
        standing = f"it is unavailable: {other.error}"
        yield Deadline(name=name, standing=standing, ends=other.ends, state=GREY)
    elif not (other.limit and other.name == FEED_CACHE and other.policy != "noeviction"):
        evicted = ": what is forgotten is published again when it is repeated"
        yield _memory(other, name, judge, at, ends=other.ends, evicted=evicted)


def _memory(
    server: FromRedis | OtherRedis,
    name: str,
    judge: Judge,
    at: float,
    *,
    ends: str,
    evicted: str = "",
) -> Deadline:
    """`ends`: what happens at the limit; `evicted`: the same if it evicts."""
    if not server.limit:
        return Deadline(
            name=name,
            standing=f"{words.bytes_of(server.memory)} are used, no bound (maxmemory)",
            ends="its machine has no more memory, and the kernel ends it",
            state=GREY,
            has_end=False,
        )
    if server.policy != "noeviction":
        ends = f"it evicts ({server.policy}){evicted}"
    free = server.limit - server.memory
    return _of_space(name, free, server.limit, judge, at, ends=ends)


def _of_space(name: str, free: int, whole: int, judge: Judge, at: float, *, ends: str) -> Deadline:
    """Amber below an eighth that is free, red below a sixteenth."""
    left = _until_empty(judge, name, free, at)
    return Deadline(
        name=name,
        left=left,
        standing=f"{words.bytes_of(free)} of {words.bytes_of(whole)} are free",
        ends=ends,
        state=worst([_of_share(free / whole / SOON), _of_trend(left)]),
    )


def _until_empty(judge: Judge, series: str, free: float, at: float) -> float | None:
    """Seconds until nothing is free, by the trend of the last ten minutes. None if less than a ten thousandth
    is used up in that time."""
    judge.note(series, free, at)
    slope = judge.slope(series, GROWING_SECONDS, least=TREND_SECONDS)
    if not slope or -slope * GROWING_SECONDS < free / 10_000:
        return None
    return free / -slope
