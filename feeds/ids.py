"""Ids of posts: 64-bit numbers that grow with time, drawn without asking anybody (docs/feeds.md#ids).

41 bits of milliseconds since 2026-01-01 UTC, 10 bits of a node, 12 bits of a sequence that goes by
twos: the odd number behind an id is its deletion's event (feeds/events.py). A process holds a node
number by a lease on its row, which has the highest millisecond that was ever promised to a holder.
The time is PostgreSQL's, by the monotonic clock here; the wall clock of this machine is never asked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec
import structlog
from django.db import connection

from feeds import metrics
from feeds.models import NODES
from outbox.database import patience
from outbox.database.ask import row_of
from outbox.database.errors import describe
from outbox.database.unit_of_work import TurnedAway

__all__ = [
    "Generator",
    "NoNode",
    "NodeLease",
    "close",
    "draw",
    "first_id_at",
    "hold_node",
    "moment_in_sql",
    "moment_of",
    "seconds_of",
]

log = structlog.get_logger(__name__)

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH_MS = int(EPOCH.timestamp() * 1000)
LEASE_SECONDS = 30.0
RENEW_SECONDS = 10.0
AGAIN_SECONDS = 1.0  # after a renewal that failed
PATIENCE_SECONDS = 3.0  # of who may wait for a node
A_MILLISECOND = 2048  # ids of one node in it
NODE_SHIFT, TIME_SHIFT = 12, 22


class NoNode(TurnedAway):
    """This process has no node number at the moment, so it can make no ids."""


class NodeLease(msgspec.Struct, frozen=True):
    """A node number, held. Milliseconds are those of ids, `read_at` and `until` of time.monotonic().

    first_ms    nobody was promised this one or a later one before
    highest_ms  what the holder is promised
    clock_ms    PostgreSQL's clock, a moment before `read_at`
    """

    node: int
    first_ms: int
    highest_ms: int
    clock_ms: int
    read_at: float
    until: float


class Generator:
    """The ids of one process. Any thread may draw; nothing waits."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._lease: NodeLease | None = None
        self._ms = 0  # of the last id
        self._sequence = 0

    @property
    def last_ms(self) -> int:
        """The millisecond of the last id; a lease must promise later ones."""
        return self._ms

    @property
    def node(self) -> int | None:
        """The one that was held last."""
        return self._lease.node if self._lease else None

    def take(self, lease: NodeLease) -> None:
        """Draw under this lease from now on: a renewed one, or one of another node."""
        with self._guard:
            if lease.node != self.node or lease.first_ms > self._ms:
                self._ms, self._sequence = max(self._ms + 1, lease.first_ms), -1
            self._lease = lease

    def draw(self) -> int:
        """The next id. Raises NoNode without a lease, behind its end, and behind what it promises."""
        with self._guard:
            lease, now = self._lease, self._monotonic()
            if lease is None or now >= lease.until:
                raise NoNode("This process cannot create post ids now")
            ms, sequence = lease.clock_ms + int((now - lease.read_at) * 1000), 0
            if ms <= self._ms:
                ms, sequence = self._ms, self._sequence + 1
                if sequence == A_MILLISECOND:
                    ms, sequence = ms + 1, 0
            if ms > lease.highest_ms:
                raise NoNode("This process cannot create more post ids now")
            self._ms, self._sequence = ms, sequence
            return ms << TIME_SHIFT | lease.node << NODE_SHIFT | sequence << 1


def moment_of(post_id: int) -> datetime:
    """When an id was drawn, by PostgreSQL's clock."""
    return EPOCH + timedelta(milliseconds=post_id >> TIME_SHIFT)


def first_id_at(moment: datetime) -> int:
    """No id that is drawn later is below this one."""
    return (int(moment.timestamp() * 1000) - EPOCH_MS) << TIME_SHIFT


def seconds_of(post_id: int) -> int:
    """The same in whole Unix seconds, for a tenth of the cost."""
    return ((post_id >> TIME_SHIFT) + EPOCH_MS) // 1000


def moment_in_sql(column: str) -> str:
    """SQL that reads the same from a column of ids."""
    return (
        f"timestamptz '{EPOCH.isoformat()}' + ({column} >> {TIME_SHIFT}) * interval '1 millisecond'"
    )


# One look at the clock a statement.
_CLOCK = f"""
    clock AS MATERIALIZED (
        SELECT now, (extract(epoch FROM now) * 1000)::bigint - {EPOCH_MS} AS ms
        FROM (SELECT clock_timestamp() AS now) AS read
    )"""
_UNTIL = "now + make_interval(secs => %(seconds)s)"
_PROMISED = int(LEASE_SECONDS * 1000)  # milliseconds, from the clock or from the last id on
# The promise is never less than it was: a renewal whose answer was lost has been made all the same.
_RENEW = f"""
    WITH {_CLOCK}
    UPDATE feed_nodes AS held
    SET until = {_UNTIL},
        highest_ms = greatest(held.highest_ms, greatest(ms, %(last)s) + {_PROMISED})
    FROM clock WHERE node = %(node)s AND owner = %(owner)s
    RETURNING node, 0, highest_ms, ms
"""
_TAKE_OVER = f"""
    WITH {_CLOCK}, free AS MATERIALIZED (
        SELECT node, highest_ms FROM feed_nodes, clock
        WHERE until <= now AND node < %(nodes)s
        ORDER BY until LIMIT 1 FOR UPDATE OF feed_nodes SKIP LOCKED
    )
    UPDATE feed_nodes AS held
    SET owner = %(owner)s, until = {_UNTIL},
        highest_ms = greatest(held.highest_ms + 1, ms, %(last)s) + {_PROMISED}
    FROM clock, free WHERE held.node = free.node
    RETURNING held.node, free.highest_ms + 1, held.highest_ms, ms
"""
# Two may choose the same; one of them then has nothing and asks again.
_ADD = f"""
    WITH {_CLOCK}, free AS (
        SELECT number FROM generate_series(0, %(nodes)s - 1) AS number
        WHERE NOT EXISTS (SELECT FROM feed_nodes WHERE node = number)
        ORDER BY number LIMIT 1
    )
    INSERT INTO feed_nodes (node, owner, until, highest_ms)
    SELECT number, %(owner)s, {_UNTIL}, greatest(ms, %(last)s) + {_PROMISED}
    FROM clock, free
    ON CONFLICT (node) DO NOTHING
    RETURNING node, 0, highest_ms, (SELECT ms FROM clock)
"""


def hold_node(
    owner: str,
    *,
    node: int | None = None,
    last_ms: int = 0,
    nodes: int = NODES,
    monotonic: Callable[[], float] = time.monotonic,
) -> NodeLease | None:
    """Hold `node`, if it is still the owner's, else any that is free; None: there is none.

    `last_ms` is that of the owner's last id. Not in a transaction: a promise that is rolled back
    would be made again to another.
    """
    if connection.in_atomic_block:
        raise RuntimeError("A node number must be taken outside of a transaction.")
    begun = monotonic()
    parameters = {
        "owner": owner,
        "node": node,
        "last": last_ms,
        "nodes": nodes,
        "seconds": LEASE_SECONDS,
    }
    ways = [_TAKE_OVER, _ADD, _ADD]
    for sql in [_RENEW, *ways] if node is not None else ways:
        row = row_of(sql, parameters)
        if row is not None:
            held, first_ms, highest_ms, clock_ms = row
            ends = begun + LEASE_SECONDS
            return NodeLease(held, first_ms, highest_ms, clock_ms, monotonic(), ends)
    return None


class _Keeper:
    """A daemon thread that holds a node number for this process, on a connection of its own:
    the code that makes ids may be in a transaction, or on an event loop."""

    def __init__(self) -> None:
        self.generator = Generator()
        self._owner = f"{os.getpid()}-{uuid4().hex}"
        self._wanted, self._stop = threading.Event(), threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="feeds-node", daemon=True)
        self._thread.start()

    def draw(self, wait: float) -> int:
        """As Generator.draw, with this patience for a node."""
        give_up = time.monotonic() + wait
        while True:
            try:
                return self.generator.draw()
            except NoNode:
                self._wanted.set()
                remaining = give_up - time.monotonic()
                if remaining <= 0:
                    raise
            with self._changed:
                self._changed.wait(min(remaining, 0.05))

    def close(self) -> None:
        """End the thread; the node is free again when its lease is over."""
        self._stop.set()
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wanted.clear()
            if not self._hold():
                self._stop.wait(AGAIN_SECONDS)
                continue
            with self._changed:
                self._changed.notify_all()
            self._wanted.wait(RENEW_SECONDS)

    def _hold(self) -> bool:
        generator = self.generator
        try:
            try:
                # A PostgreSQL that says nothing is asked again before the lease is over.
                with patience.within(RENEW_SECONDS):
                    lease = hold_node(self._owner, node=generator.node, last_ms=generator.last_ms)
            finally:
                # It is needed every few seconds: no session of PostgreSQL waits for it in between.
                connection.close()
        except Exception as error:  # noqa: BLE001  (without this thread nobody here posts any more)
            metrics.NODES_NOT_HELD.inc()
            log.warning("feeds_node_not_held", error=describe(error))
            return False
        if lease is None:
            metrics.NODES_NOT_HELD.inc()
            log.error(
                "feeds_node_not_held",
                error=f"Other processes hold all {NODES} node numbers; wait until a lease ends, or start fewer processes.",
            )
            return False
        generator.take(lease)
        return True


_keeper: _Keeper | None = None
_guard = threading.Lock()


def draw(*, wait: float | None = None) -> int:
    """An id for a new post. Raises NoNode if this process has held no node for `wait` seconds, by
    default PATIENCE_SECONDS; 0: at once."""
    global _keeper
    keeper = _keeper
    if keeper is None:
        with _guard:
            keeper = _keeper = _keeper or _Keeper()
    return keeper.draw(PATIENCE_SECONDS if wait is None else wait)


def close() -> None:
    """Draw nothing more until somebody asks again, then under another owner."""
    global _keeper
    with _guard:
        keeper, _keeper = _keeper, None
    if keeper is not None:
        keeper.close()


def _forget() -> None:
    """In the child of a fork: the thread is the parent's, and so is the node."""
    global _keeper, _guard
    _keeper, _guard = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
