"""What is known of one scenario: what was committed, what Kafka holds and what the effects did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from devtools.chaos.order_life import OrderLives
from devtools.chaos.outcome import WriteOutcome

__all__ = [
    "Applied",
    "Fault",
    "FeedsHistory",
    "History",
    "Logged",
    "Stored",
    "TableHealth",
    "WrittenEvent",
]


@dataclass(frozen=True, slots=True)
class WrittenEvent:
    """One event of one attempt, as the writer knows it."""

    event_id: str
    key: str
    seq: int
    outcome: WriteOutcome
    at: float = 0.0  # when it was answered, seconds since the epoch


@dataclass(frozen=True, slots=True)
class Stored:
    """One row of the outbox; moments in seconds since the epoch, by the database's clock.

    `seq` is the probe's number, None for other events. `heard`: some handler listens to it. `of_order`:
    it is about an order, whose id is its key.
    """

    id: int
    event_id: str
    topic: str
    key: str
    created_at: float
    published_at: float | None
    seq: int | None = None
    heard: bool = True
    of_order: bool = False


@dataclass(frozen=True, slots=True)
class Logged:
    """One message in Kafka."""

    event_id: str
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Applied:
    """One entry of the probe's log, in the order of application."""

    event_id: str
    key: str
    seq: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something was broken from `begin` to `end` (seconds since the epoch).

    `repeats`: it can take a drain's batch or its settling, so that the batch goes out again.
    """

    name: str
    begin: float
    end: float
    repeats: bool = True


@dataclass(frozen=True, slots=True)
class TableHealth:
    """Row versions of one table, as PostgreSQL's statistics have them."""

    live: int
    dead: int
    updated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedsHistory:
    """What became of feeds.

    changes, pages, users  how many were made, read meanwhile, and compared in the end
    wrong                  what was answered and is not so, and feeds and entries that differ from the
                           truth
    impossible             pages that cannot have been true when they were read
    """

    changes: int = 0
    pages: int = 0
    users: int = 0
    wrong: Sequence[str] = ()
    impossible: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that is known of one scenario.

    probe_topic      topic whose application order `applied` has
    log_complete     False where the probe's topic was deleted: of it only effects can be demanded
    receipts         event ids with a receipt `applied` or `discarded`, one entry a receipt
    effects          topic -> event ids of it whose effect, a row of their own, is there
    parked           event ids that wait as or behind a dead letter when the scenario ends
    dead_letters     event ids that were dead letters of their own (not followers) at any time
    poison           event ids that were sent to become dead letters
    figures_differ   sales figures that differ from the recount
    orders           the answers to buyers, and each order's history
    unsettled        events that had no receipt when the bound of the settling passed
    zombies          name -> (digest before it woke, digest after)
    lost_between     moments between which the database forgot what was committed, on purpose
    feeds            what users of feeds have seen, and how their feeds differ from the truth in the end
    lane_updates     how often rows of outbox_lane may be updated, which are otherwise only locked
    recovery         seconds from the end of the last fault to a normal backlog; None: never
    """

    probe_topic: str = "probe-events"
    written: Sequence[WrittenEvent] = ()
    stored: Sequence[Stored] = ()
    logged: Sequence[Logged] = ()
    applied: Sequence[Applied] = ()
    receipts: Sequence[str] = ()
    effects: Mapping[str, frozenset[str]] = field(default_factory=dict)
    parked: frozenset[str] = frozenset()
    dead_letters: frozenset[str] = frozenset()
    poison: frozenset[str] = frozenset()
    faults: Sequence[Fault] = ()
    log_complete: bool = True
    figures_differ: int = 0
    orders: OrderLives = field(default_factory=OrderLives)
    lost_between: tuple[float, float] | None = None
    unsettled: int = 0
    zombies: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    feeds: FeedsHistory = field(default_factory=FeedsHistory)
    recovery: float | None = 0.0
    recovery_bound: float = 120.0
    tables: Mapping[str, TableHealth] = field(default_factory=dict)
    lane_updates: int = 0
