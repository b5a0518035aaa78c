"""The checker: the history of one scenario, judged. No I/O.

Every judge counts damage and keeps examples; an invariant holds when its count is zero. The order
of a key is the order of its outbox ids, which are drawn under the lock of its key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from devtools.chaos import order_life
from devtools.chaos.history import Fault, History, Stored
from devtools.chaos.outcome import WriteOutcome

__all__ = ["Verdict", "judge"]


EXAMPLES = 5
# Rows that may be dead beside the living ones before it counts as bloat: autovacuum's own
# thresholds (5,000) and what a scenario writes while it runs.
DEAD_ROWS_ALLOWED = 20_000
LANES = "outbox_lane"
# Clocks: a batch is claimed a moment before we see it held, and settled a moment after its end.
FAULT_MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One invariant: how much damage, and some of it. `figure` is what the table shows."""

    invariant: str
    title: str
    damage: int
    examples: tuple[str, ...] = ()
    figure: str = ""

    @property
    def ok(self) -> bool:
        """No damage was found."""
        return self.damage == 0


def judge(history: History) -> list[Verdict]:
    """All twelve invariants, in their order."""
    return [
        _committed_is_delivered(history),
        _rolled_back_is_never(history),
        _order_of_each_key(history),
        _effects_once(history),
        _duplicates_in_kafka(history),
        _nothing_stuck(history),
        _zombies(history),
        _dead_letters(history),
        _recovery(history),
        _dead_rows(history),
        _feeds_equal_the_truth(history),
        _pages_that_were_read(history),
    ]


def _verdict(invariant: str, title: str, damage: Iterable[str], figure: str) -> Verdict:
    found = list(damage)
    return Verdict(invariant, title, len(found), tuple(found[:EXAMPLES]), figure)


def _committed_is_delivered(history: History) -> Verdict:
    """I1. What was answered "committed" is stored; what is stored is in Kafka, and applied where
    somebody listens to it.

    An event answered "unknown" may be stored or not, but if it is, it is delivered like any other.
    """
    stored = {row.event_id for row in history.stored}
    applied = {entry.event_id for entry in history.applied}
    effects = {history.probe_topic: applied, **history.effects}
    logged = {message.event_id for message in history.logged}
    receipts = set(history.receipts)
    lost = _lost(history)
    found = stored | lost
    damage = [
        f"{event.key}:{event.seq} was committed and is not stored"
        for event in history.written
        if event.outcome is WriteOutcome.COMMITTED and event.event_id not in found
    ]
    damage += order_life.missing(history.orders, _outbox_ids(history), history.lost_between)
    for row in history.stored:
        if row.event_id in history.parked:
            continue
        effect = effects.get(row.topic, receipts)
        log_lost = not history.log_complete and row.topic == history.probe_topic
        if row.heard and row.event_id not in effect:
            damage.append(f"{_name(row)} was committed and has no effect")
        elif not log_lost and row.event_id not in logged:
            damage.append(f"{_name(row)} was committed and is not in Kafka")
    unknown = sum(event.outcome is WriteOutcome.UNKNOWN for event in history.written)
    figure = f"{len(history.stored)}" + (f", {unknown} unknown" if unknown else "")
    figure += f", {len(lost)} lost" if lost else ""
    return _verdict("I1", "committed ⇒ delivered", damage, figure)


def _rolled_back_is_never(history: History) -> Verdict:
    """I2. Nothing of what was rolled back or answered "not stored" exists anywhere; nothing else
    came out of nowhere."""
    stored = {row.event_id for row in history.stored}
    found = {
        "stored": stored,
        "in Kafka": {message.event_id for message in history.logged},
        "applied": {entry.event_id for entry in history.applied},
    }
    never = [
        event
        for event in history.written
        if event.outcome in (WriteOutcome.ROLLED_BACK, WriteOutcome.NOT_STORED)
    ]
    damage = [
        f"{event.key}:{event.seq} was {event.outcome.replace('_', ' ')} and is {where}"
        for event in never
        for where, ids in found.items()
        if event.event_id in ids
    ]
    known = {event.event_id for event in never} | _lost(history)
    damage += [
        f"{entry.key}:{entry.seq} was applied and never committed"
        for entry in history.applied
        if entry.event_id not in stored and entry.event_id not in known
    ]
    order_events = {row.event_id: row.key for row in history.stored if row.of_order}
    damage += order_life.forbidden(history.orders, order_events)
    return _verdict("I2", "rolled back ⇒ never", damage, str(len(never)))


def _order_of_each_key(history: History) -> Verdict:
    """I3. First applications of a key follow its commits, through retry, dead letter and redrive;
    so do its first occurrences in Kafka."""
    rows = {row.event_id: row for row in history.stored}
    damage = _numbers_out_of_order(history.stored)
    damage += order_life.out_of_turn(history.orders, _outbox_ids(history))
    applied = [rows[e.event_id] for e in history.applied if e.event_id in rows]
    damage += [f"{text} was applied after {other}" for text, other in _inversions(applied)]
    by_place = sorted(history.logged, key=lambda m: (m.topic, m.partition, m.offset))
    logged = [rows[m.event_id] for m in by_place if m.event_id in rows]
    damage += [f"{text} is in Kafka behind {other}" for text, other in _inversions(logged)]
    keys = len({(row.topic, row.key) for row in history.stored})
    return _verdict("I3", "order per key", damage, str(keys))


def _numbers_out_of_order(stored: Sequence[Stored]) -> list[str]:
    """Ids must follow the numbers drawn under the key's lock."""
    last: dict[str, int] = {}
    damage = []
    for row in sorted(stored, key=lambda row: row.id):
        if row.seq is None:
            continue
        if row.seq <= last.get(row.key, 0):
            damage.append(f"{_name(row)} has a higher outbox id than {row.key}:{last[row.key]}")
        last[row.key] = max(row.seq, last.get(row.key, 0))
    return damage


def _inversions(rows: Iterable[Stored]) -> list[tuple[str, str]]:
    """First occurrences that come after a later one of their key, and that later one."""
    highest: dict[tuple[str, str], Stored] = {}
    seen: set[str] = set()
    found = []
    for row in rows:
        if row.event_id in seen:
            continue
        seen.add(row.event_id)
        before = highest.get((row.topic, row.key))
        if before is not None and row.id < before.id:
            found.append((_name(row), _name(before)))
        else:
            highest[row.topic, row.key] = row
    return found


def _effects_once(history: History) -> Verdict:
    """I4. One entry in the log an event, one receipt an event, and the figures add up."""
    lost = _lost(history)  # their numbers were drawn again
    applied = [entry for entry in history.applied if entry.event_id not in lost]
    entries = Counter(f"{entry.key}:{entry.seq}" for entry in applied)
    damage = [f"{name} was applied {count} times" for name, count in entries.items() if count > 1]
    receipts = set(history.receipts)
    damage += [
        f"{entry.key}:{entry.seq} was applied without a receipt"
        for entry in applied
        if entry.event_id not in receipts and entry.event_id not in history.parked
    ]
    if history.figures_differ:
        damage.append(f"{history.figures_differ} sales figures differ from the recount")
    return _verdict("I4", "each effect once", damage, str(len(history.applied)))


def _duplicates_in_kafka(history: History) -> Verdict:
    """I5. A message may repeat an earlier one only if its event was on its way (committed, not
    settled) at a moment when something was broken: it was in the batch that was claimed then."""
    copies = Counter(message.event_id for message in history.logged)
    repeated = {event_id: count - 1 for event_id, count in copies.items() if count > 1}
    rows = {row.event_id: row for row in history.stored}
    damage = [
        f"{_name(rows[event_id])} is {count + 1} times in Kafka without a fault to explain it"
        for event_id, count in repeated.items()
        if event_id in rows and not _was_on_its_way(rows[event_id], history.faults)
    ]
    return _verdict("I5", "duplicates in Kafka", damage, str(sum(repeated.values())))


def _was_on_its_way(row: Stored, faults: Iterable[Fault]) -> bool:
    settled = row.published_at if row.published_at is not None else float("inf")
    return any(
        row.created_at <= fault.end + FAULT_MARGIN and settled >= fault.begin - FAULT_MARGIN
        for fault in faults
        if fault.repeats
    )


def _nothing_stuck(history: History) -> Verdict:
    """I6. All that was committed had its effect (or waited as a dead letter) within the bound."""
    damage = ["it had no effect within the bound"] * history.unsettled
    return _verdict("I6", "nothing stuck", damage, str(history.unsettled))


def _zombies(history: History) -> Verdict:
    """I7. What had been given up changed nothing when it woke."""
    damage = [
        f"{name}: {before} became {after}"
        for name, (before, after) in history.zombies.items()
        if before != after
    ]
    return _verdict("I7", "a zombie changes nothing", damage, str(len(history.zombies)))


def _dead_letters(history: History) -> Verdict:
    """I8. Exactly the poison became dead letters."""
    damage = [f"{i} is poison and no dead letter" for i in history.poison - history.dead_letters]
    damage += [f"{i} is a dead letter and no poison" for i in history.dead_letters - history.poison]
    figure = f"{len(history.dead_letters)}/{len(history.poison)}"
    return _verdict("I8", "dead letters = poison", sorted(damage), figure)


def _recovery(history: History) -> Verdict:
    """I9. The backlog was back to normal within the bound, under load."""
    seconds = history.recovery
    late = seconds is None or seconds > history.recovery_bound
    figure = "never" if seconds is None else f"{seconds:.1f} s"
    damage = [f"{figure}, the bound is {history.recovery_bound:.0f} s"] if late else []
    return _verdict("I9", "time to recover", damage, figure)


def _dead_rows(history: History) -> Verdict:
    """I10. Dead row versions stay bounded; a lane's row never has any, because it is only locked."""
    damage = []
    for name, table in history.tables.items():
        if table.dead > table.live + DEAD_ROWS_ALLOWED:
            damage.append(f"{name} has {table.dead} dead rows beside {table.live} living ones")
        if name == LANES and table.updated > history.lane_updates:
            damage.append(
                f"{name} was updated {table.updated} times, expected {history.lane_updates}"
            )
    worst = max((table.dead for table in history.tables.values()), default=0)
    return _verdict("I10", "dead rows bounded", damage, str(worst))


def _feeds_equal_the_truth(history: History) -> Verdict:
    """I11. Once everything is applied, every feed, read to its first post from PostgreSQL and from the
    cache, is the posts of who is followed; and what was answered is so."""
    return _verdict("I11", "feeds = truth", history.feeds.wrong, str(history.feeds.users))


def _pages_that_were_read(history: History) -> Verdict:
    """I12. No page has shown a post that was deleted or of somebody not followed, or has left out one
    that was there before its author was followed."""
    return _verdict("I12", "pages possible", history.feeds.impossible, str(history.feeds.pages))


def _lost(history: History) -> set[str]:
    """Events that the database was made to forget: they may have effects, and no row."""
    if history.lost_between is None:
        return set()
    begin, end = history.lost_between
    stored = {row.event_id for row in history.stored}
    return {
        event.event_id
        for event in history.written
        if event.outcome in (WriteOutcome.COMMITTED, WriteOutcome.UNKNOWN)
        and begin <= event.at <= end
    } - stored


def _outbox_ids(history: History) -> dict[str, int]:
    return {row.event_id: row.id for row in history.stored}


def _name(row: Stored) -> str:
    return f"{row.key}:{row.seq}" if row.seq is not None else f"{row.topic} {row.event_id}"
