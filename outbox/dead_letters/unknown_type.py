"""Events whose type this process does not know: they pass by, wait, or are parked (guarantees.md#r12;
docs/applying.md#what-may-fail has the cases).

The wait begins when the event was published, by the database's clock. So a restart does not
prolong it, and old events of a type that was taken out of the code do not wait at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from django.conf import settings

from outbox import conf, metrics
from outbox.database.ask import changed_by, rows_of
from outbox.database.leases import Lease
from outbox.dead_letters.letter import Letter
from outbox.declaration import Route
from outbox.envelope import EventEnvelope, correlation_fields, to_column
from outbox.models import CLOCK, DeadLetter
from outbox.publish.known import seconds_since_published

__all__ = [
    "UNKNOWN_TYPE",
    "Sorted",
    "count_open",
    "is_unknown",
    "passes_by",
    "report_parked",
    "send_back",
    "sort_out",
    "take",
    "take_known",
]

UNKNOWN_TYPE = "unknown type"
"""Begins the error of such a letter, also in the partial index of dead_letter."""

FOREIGN_NAMES = 20  # of types of other producers that a metric names; the others are "other"
OTHER = "other"
TAKEN = 1000  # letters that one call makes due
AGAIN_SECONDS = 10.0  # until a letter that an older worker sent back is tried by itself again

log = structlog.get_logger("outbox.unknown_type")


def is_unknown(route: Route, type_: str) -> bool:
    """Whether the type is in no declaration of the route's topic. A message without one is judged
    by its value."""
    return bool(type_) and type_ not in conf.known_types(route.topic.name)


@dataclass(frozen=True, slots=True)
class Sorted:
    """A run of a partition as this process may apply it.

    events  with their offsets: those that the handler applies, and those to be parked
    parks   event id -> the error of its letter
    waits   the first event that must wait, with its offset; the run ends before it
    """

    events: Sequence[tuple[int, EventEnvelope]]
    parks: Mapping[UUID, str] = field(default_factory=dict)
    waits: tuple[int, EventEnvelope] | None = None


def sort_out(route: Route, run: Sequence[tuple[int, EventEnvelope]]) -> Sorted:
    """Separate the events that the handler applies, those that it skips, and those of unknown types.

    Asks the database only about events of unknown types, and counts those of other producers; events after
    one that waits are read again later. Raises what the database raises.
    """
    subscribed = route.event_types
    # A message of another producer may lack its type: then the handler must judge it by its value.
    events = [each for each in run if not each[1].type or each[1].type in subscribed]
    if len(events) == len(run):
        return Sorted(run)
    known = conf.known_types(route.topic.name)
    unknown = [event for _, event in run if event.type and event.type not in known]
    if not unknown:
        return Sorted(events)
    ages = seconds_since_published([event.event_id for event in unknown])
    parks = _to_park(route, [event for event in unknown if event.event_id in ages], ages)
    events = []
    for offset, event in run:
        if event.event_id in parks or not event.type or event.type in subscribed:
            events.append((offset, event))
        elif event.type in known:
            continue
        elif event.event_id in ages:
            return Sorted(events, parks, (offset, event))
        else:
            metrics.FOREIGN_TYPES.labels(route.handler, _bounded(event.type)).inc()
    return Sorted(events, parks)


def _to_park(
    route: Route, ours: Sequence[EventEnvelope], ages: Mapping[UUID, float]
) -> dict[UUID, str]:
    """The events that have waited long enough, and those of a type that is parked already."""
    parked = _types_parked(route.handler, {event.type for event in ours})
    wait = settings.OUTBOX_UNKNOWN_TYPE_WAIT  # seconds
    return {
        event.event_id: _error(event.type)
        for event in ours
        if event.type in parked or ages[event.event_id] >= wait
    }


def _error(type_: str) -> str:
    return f"{UNKNOWN_TYPE} {type_}: release {conf.release()} does not know it"


_foreign_names: set[str] = set()


def _bounded(type_: str) -> str:
    """The label for a foreign type. Any program may write any type, so only the first ones get a label."""
    if type_ not in _foreign_names and len(_foreign_names) >= FOREIGN_NAMES:
        return OTHER
    _foreign_names.add(type_)
    return type_


def _types_parked(handler: str, types: Collection[str]) -> set[str]:
    """The types of which the handler has a parked letter."""
    if not types:
        return set()
    rows = rows_of(
        """
        SELECT type FROM unnest(%s::text[]) AS asked (type)
        WHERE EXISTS (
            SELECT FROM dead_letter AS letter
            WHERE letter.handler = %s AND letter.type = asked.type
              AND letter.state = 1 AND letter.error LIKE 'unknown type%%')
        """,
        (sorted(types), handler),
    )
    return {row[0] for row in rows}


# -- letters ---------------------------------------------------------------------------------------


def passes_by(route: Route, letter: Letter) -> bool:
    """Whether a letter was parked for its type, which this process knows and the handler does not
    subscribe to: then it would have passed by."""
    return letter.error.startswith(UNKNOWN_TYPE) and letter.event.type in conf.passing_types(route)


def send_back(letter: Letter, lease: Lease) -> None:
    """Park a letter that was due, and whose type this process does not know; the try that began
    with `lease` is taken back. Inside the transaction that began it."""
    DeadLetter.objects.filter(id=letter.id, state=DeadLetter.State.RETRYING).update(
        state=DeadLetter.State.PARKED,
        attempts=lease.number,
        next_attempt_at=None,
        error=to_column(_error(letter.event.type)),
        failed_at=CLOCK,
    )
    report_parked(letter.handler, [letter.event])


def report_parked(handler: str, events: Sequence[EventEnvelope]) -> None:
    """Log the events that were parked because of their type, one line for each type."""
    for type_ in sorted({event.type for event in events}):
        same = [event for event in events if event.type == type_]
        log.error(
            "unknown_type_parked",
            handler=handler,
            type=type_,
            release=conf.release(),
            events=len(same),
            advice="start a process of a release that knows the type; it applies them",
            **correlation_fields(event.trace.correlation_id for event in same),
        )


def take_known(routes: Sequence[Route]) -> int:
    """Make letters due whose type this process knows by now; returns how many."""
    parked = DeadLetter.objects.filter(
        state=DeadLetter.State.PARKED, error__startswith=UNKNOWN_TYPE
    )
    return sum(
        _make_due(route, conf.known_types(route.topic.name), after=AGAIN_SECONDS)
        for route in routes
        if parked.filter(handler=route.handler).exists()
    )


def take(route: Route, type_: str) -> int:
    """Make the handler's letters of one type due at once; returns how many. Raises LookupError if
    this process does not know the type either."""
    if is_unknown(route, type_) or not type_:
        known = ", ".join(sorted(conf.known_types(route.topic.name)))
        raise LookupError(
            f"Release {conf.release()} does not know {type_!r} of topic {route.topic.name}; it knows"
            f" {known}. Run this from a release that does."
        )
    total = 0
    while taken := _make_due(route, [type_], after=0.0):
        total += taken
    return total


def _make_due(route: Route, types: Collection[str], *, after: float) -> int:
    """Heads of their keys only: their followers go after them. No lock of the position is needed:
    nothing can come before a head, and who resolves what stands before one makes it due as well."""
    taken = changed_by(
        """
        WITH ready AS MATERIALIZED (
            SELECT id FROM dead_letter AS letter
            WHERE handler = %s AND type = ANY(%s) AND state = 1
              AND error LIKE 'unknown type%%'
              AND coalesce(failed_at <= clock_timestamp() - make_interval(secs => %s), true)
              AND (NOT %s OR NOT EXISTS (
                  SELECT FROM dead_letter AS earlier
                  WHERE earlier.handler = letter.handler AND earlier.topic = letter.topic
                    AND md5(earlier.key) = md5(letter.key) AND earlier.key = letter.key
                    AND earlier."partition" = letter."partition" AND earlier.state < 3
                    AND earlier.id < letter.id))
            ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
        )
        UPDATE dead_letter SET state = 0, next_attempt_at = clock_timestamp()
        FROM ready WHERE dead_letter.id = ready.id
        """,
        (route.handler, sorted(types), after, route.ordered, TAKEN),
    )
    if taken:
        log.warning("unknown_type_taken", handler=route.handler, letters=taken)
    return taken


def count_open(limit: int) -> dict[tuple[str, str, str], int]:
    """(handler, type, release that does not know it) -> letters parked for it; looks at `limit` of each
    handler and type at most, so those of one hide no other."""
    rows = rows_of(
        """
        WITH RECURSIVE known AS (
            (SELECT handler, type FROM dead_letter
             WHERE state = 1 AND error LIKE 'unknown type%%' ORDER BY handler, type LIMIT 1)
            UNION ALL
            SELECT next.handler, next.type FROM known CROSS JOIN LATERAL (
                SELECT handler, type FROM dead_letter
                WHERE state = 1 AND error LIKE 'unknown type%%'
                  AND (handler, type) > (known.handler, known.type)
                ORDER BY handler, type LIMIT 1
            ) AS next
        )
        SELECT handler, type, error, count(*) FROM known CROSS JOIN LATERAL (
            SELECT error FROM dead_letter
            WHERE state = 1 AND error LIKE 'unknown type%%'
              AND handler = known.handler AND type = known.type LIMIT %s
        ) AS parked GROUP BY handler, type, error
        """,
        (limit,),
    )
    return {
        (handler, type_, _release_in(type_, error)): letters
        for handler, type_, error, letters in rows
    }


def _release_in(type_: str, error: str) -> str:
    """The inverse of _error."""
    return error.removeprefix(f"{UNKNOWN_TYPE} {type_}: release ").removesuffix(" does not know it")
