"""Trying dead letters again: what is due is claimed from PostgreSQL and applied by its handler's
own task, never through Kafka (rule R12).

A claim is a lease on the row. The worker raises `attempts` in a transaction of its own before the
effect begins, so a letter that ends its process uses its tries up like any other. The effect runs
under the lock of the position, and the receipt decides: only who turns it from parked to applied
may run the effect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog
from django.db import DatabaseError, InterfaceError, connection, transaction

from outbox import broker, conf, dead_letters, inbox, metrics, tracing
from outbox.conf import BRIDGE, REDRIVE, Route
from outbox.dead_letters import Letter
from outbox.envelope import EventEnvelope, to_column
from outbox.failures import describe, is_timeout, is_transient, limit_transaction
from outbox.models import DeadLetter, InboxReceipt
from outbox.topics import PartitionKey

__all__ = [
    "Claim",
    "apply_letters",
    "claim_due",
    "free_place",
    "lock_place",
    "run_letters",
    "send_due",
]

REDRIVER = "redrive"

Claim = tuple[int, int]
"""(id of a letter, its attempts when it was claimed). A copy of a task that a worker finds late
begins nothing: somebody has tried the letter since. Through JSON it is a list."""

log = structlog.get_logger("outbox.redrive")


class _Paused(ConnectionError):
    """The handler is paused: its letters wait, like everything else of it."""


# -- claiming: the beat task -------------------------------------------------------------------


def send_due() -> int:
    """Hand the letters that are due to their handlers' tasks; returns how many. What goes wrong
    for one handler is logged, and keeps nothing from the others."""
    sent = 0
    for handler in handlers_due():
        try:
            sent += _send_due_of(conf.route_named(handler))
        except Exception as error:
            log.exception("redrive_not_claimed", handler=handler, error=describe(error))
    return sent


def _send_due_of(route: Route) -> int:
    if broker.queue_length(route.queue) > BRIDGE.queue_bound:
        return 0
    sent = 0
    with tracing.step(f"redrive {route.handler}", tracing.PRODUCER) as step:
        claims = claim_due(route)
        if not claims:
            step.forget()
        for begin in range(0, len(claims), REDRIVE.letters_per_task):
            letters = claims[begin : begin + REDRIVE.letters_per_task]
            if not broker.send(route, letters=letters):  # due again after their leases
                break
            sent += len(letters)
        step.tell({"outbox.letters": sent})
    return sent


def handlers_due() -> list[str]:
    """Handlers with a letter that is due, unless they are paused; one probe of an index each."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT handler FROM unnest(%s::text[]) AS route (handler)
            WHERE EXISTS (
                SELECT FROM dead_letter AS letter
                WHERE letter.handler = route.handler AND state = 0
                  AND next_attempt_at <= clock_timestamp()
            ) AND NOT EXISTS (
                SELECT FROM handler_control AS control
                WHERE control.handler = route.handler AND paused
            )
            """,
            ([route.handler for route in conf.routes()],),
        )
        return [row[0] for row in cursor.fetchall()]


def claim_due(route: Route) -> list[Claim]:
    """Lease the due letters of a handler, a bounded number.

    Those whose tries are used up without an answer, because each ended its process, are dead.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT id, attempts FROM dead_letter
            WHERE handler = %s AND state = 0 AND next_attempt_at <= clock_timestamp()
            ORDER BY next_attempt_at LIMIT %s FOR UPDATE SKIP LOCKED
            """,
            (route.handler, REDRIVE.claim),
        )
        rows = cursor.fetchall()
        if not rows:
            return []
        used_up = [letter_id for letter_id, attempts in rows if attempts >= route.tries]
        for letter in dead_letters.lock_letters(used_up):
            _bury_or_log(letter)
        due = [(letter_id, attempts) for letter_id, attempts in rows if attempts < route.tries]
        cursor.execute(
            """
            UPDATE dead_letter SET next_attempt_at = clock_timestamp() + make_interval(secs => %s)
            WHERE id = ANY(%s) AND state = 0
            """,
            (REDRIVE.lease, [letter_id for letter_id, _ in rows]),
        )
    return due


def _bury_or_log(letter: Letter) -> None:
    """In a savepoint of its own: a letter that cannot be buried is looked at again after its lease,
    and keeps no other from its turn."""
    try:
        with transaction.atomic():
            _bury([letter])
    except Exception as error:
        if is_transient(error):
            raise
        log.exception(
            "letter_not_buried", handler=letter.handler, letter=letter.id, error=describe(error)
        )


# -- applying: the handler's task ---------------------------------------------------------------


def run_letters(
    *, handler: str, letters: Sequence[Claim], effect: Callable[[Sequence[EventEnvelope]], None]
) -> int:
    """Try these letters and, once one of them is through, what waits behind it; returns the number
    of events applied. Never raises: what is not applied stays due."""
    if not letters:
        return 0
    route = conf.route_named(handler)
    give_up = time.monotonic() + BRIDGE.effect_timeout
    applied = 0
    for number, (letter_id, attempts) in enumerate(letters):
        try:
            if time.monotonic() > give_up:
                _due_now([left for left, _ in letters[number:]])
                break
            applied += _run_key(route, (letter_id, attempts), effect, give_up)
        except (DatabaseError, InterfaceError) as error:
            log.warning("redrive_left", handler=handler, letter=letter_id, error=str(error))
            tracing.record_error(error)
    return applied


def _run_key(
    route: Route,
    claim: Claim,
    effect: Callable[[Sequence[EventEnvelope]], None],
    give_up: float,
) -> int:
    """Head first, alone; then what waits behind it, in growing batches; if one fails, one by one."""
    applied, size, one_by_one = 0, 1, False
    following: Claim | None = claim
    while following is not None:
        if applied and time.monotonic() > give_up:
            _due_now([following[0]])
            break
        batch = _begin(route, following, size)
        if not batch:
            break
        tracing.current_step().link(letter.event.trace.traceparent for letter in batch)
        try:
            done, following = apply_letters(route, batch, effect)
        except Exception as error:  # noqa: BLE001  (whatever an effect raises, the letter stays)
            tracing.record_error(error)
            if is_transient(error) and not is_timeout(error):
                _give_back(batch[0], describe(error))
                break
            if len(batch) == 1:
                _failed(route, batch[0], error)
                break
            _give_back(batch[0], describe(error))
            size, one_by_one = 1, True
            continue
        applied += done
        size = 1 if one_by_one else min(size * 4, REDRIVE.batch)
    return applied


def _begin(route: Route, claim: Claim, size: int) -> list[Letter]:
    """Count the try before it is made; the head and up to size - 1 of its followers, empty if the
    letter is no longer to be tried, or was tried since it was claimed."""
    letter_id, attempts = claim
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE dead_letter SET attempts = attempts + 1,
                    next_attempt_at = clock_timestamp() + make_interval(secs => %s)
                WHERE id = %s AND state = 0 AND attempts = %s AND attempts < %s
                """,
                (REDRIVE.lease, letter_id, attempts, route.tries),
            )
            if not cursor.rowcount:
                return []
        [head] = dead_letters.lock_letters([letter_id])
        if size == 1 or not route.ordered:
            return [head]
        run = dead_letters.head_of(route.handler, head.place, limit=size)
    return run if run[0].id == head.id else [head]


def apply_letters(
    route: Route, batch: Sequence[Letter], effect: Callable[[Sequence[EventEnvelope]], None]
) -> tuple[int, Claim | None]:
    """One transaction over letters of one key, in order: receipts, effect, rows, and the next one
    made the head. Returns how many effects ran, and the claim of that next one.

    Raises what the database or the effect raises, and ConnectionError while the handler is paused.
    """
    handler, first = route.handler, batch[0]
    with transaction.atomic():
        limit_transaction()
        lock_place(first)
        batch = _still_open(batch)
        mine = inbox.settle_receipts(
            handler, [letter.event.event_id for letter in batch], InboxReceipt.Outcome.APPLIED
        )
        events = [letter.event for letter in batch if letter.event.event_id in mine]
        if events:
            effect(events)
        dead_letters.resolve([letter.id for letter in batch], DeadLetter.State.APPLIED, by=REDRIVER)
        following = free_place(first, ordered=route.ordered, delay=REDRIVE.lease)
    metrics.REDRIVEN.labels(handler, "applied").inc(len(events))
    log.info(
        "redriven",
        handler=handler,
        topic=first.event.topic,
        key=first.event.key,
        events=len(events),
        letters=[letter.id for letter in batch],
    )
    return len(events), following


def _still_open(batch: Sequence[Letter]) -> list[Letter]:
    """Those that nobody has closed since they were read: a replay of the whole handler, or an
    operator's discard, may have come first."""
    open_ids = {letter.id for letter in dead_letters.lock_letters(each.id for each in batch)}
    return [letter for letter in batch if letter.id in open_ids]


def lock_place(letter: Letter, *, even_paused: bool = False) -> None:
    """Lock the position whose partition the letter comes from. Raises ConnectionError if its
    handler is paused there."""
    key = _place(letter)
    position = inbox.lock_positions(letter.handler, [key], wait=REDRIVE.lock_wait).get(key)
    if position is not None and position.paused and not even_paused:
        raise _Paused(_Paused.__doc__)


def free_place(letter: Letter, *, ordered: bool, delay: float) -> Claim | None:
    """After a letter was resolved: make the next one of its key the head, due after `delay`
    seconds; returns its claim. With nothing open, the partition stops asking for parked keys.

    A handler that was ordered once may have parked letters, which nothing else would wake.
    """
    following = dead_letters.head_of(letter.handler, letter.place, parked=not ordered)
    if following:
        [head] = following
        dead_letters.promote(head.id, delay=delay)
        return head.id, head.attempts
    topic, partition = _place(letter)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE bridge_position SET letters_open = false
            WHERE handler = %s AND topic = %s AND "partition" = %s AND letters_open
              AND NOT EXISTS (
                SELECT FROM dead_letter AS letter
                WHERE letter.handler = bridge_position.handler
                  AND letter.topic = bridge_position.topic
                  AND letter."partition" = bridge_position."partition" AND letter.state < 3
              )
            """,
            (letter.handler, topic, partition),
        )
    return None


def _place(letter: Letter) -> PartitionKey:
    assert letter.partition is not None  # only letters of the drain have none
    return letter.event.topic, letter.partition


def _failed(route: Route, letter: Letter, error: Exception) -> None:
    """Due again after its backoff; dead if that was its last try."""
    metrics.REDRIVEN.labels(route.handler, "failed").inc()
    log.warning(
        "redrive_failed",
        handler=route.handler,
        event_id=str(letter.event.event_id),
        attempts=letter.attempts,
        error=describe(error),
    )
    with transaction.atomic():
        still = [each for each in dead_letters.lock_letters([letter.id]) if each.state == 0]
        if still and letter.attempts >= route.tries:
            _bury(still, describe(error))
        elif still:
            _due_in(letter, dead_letters.backoff(route, letter.attempts), describe(error))


def _bury(letters: Sequence[Letter], error: str = "") -> None:
    dead_letters.bury([replace(each, error=error or each.error) for each in letters])
    for letter in letters:
        metrics.REDRIVEN.labels(letter.handler, "dead").inc()
        log.error(
            "event_dead",
            handler=letter.handler,
            event_id=str(letter.event.event_id),
            topic=letter.event.topic,
            key=letter.event.key,
            attempts=letter.attempts,
            error=error or letter.error,
            advice="manage.py dead_letters inspect, then replay or discard",
        )


def _give_back(letter: Letter, reason: str) -> None:
    """Not the letter's fault: the try does not count."""
    log.info("redrive_given_back", handler=letter.handler, letter=letter.id, reason=reason)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE dead_letter SET attempts = greatest(attempts - 1, 0),
                next_attempt_at = clock_timestamp() + make_interval(secs => %s)
            WHERE id = %s AND state = 0
            """,
            (REDRIVE.again, letter.id),
        )


def _due_now(ids: Sequence[int]) -> None:
    """Time is up before these were begun: no need to wait for the end of their leases."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE dead_letter SET next_attempt_at = clock_timestamp()"
            " WHERE id = ANY(%s) AND state = 0",
            (list(ids),),
        )


def _due_in(letter: Letter, seconds: float, error: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE dead_letter SET error = %s, failed_at = clock_timestamp(),
                next_attempt_at = clock_timestamp() + make_interval(secs => %s)
            WHERE id = %s AND state = 0
            """,
            (to_column(error[: dead_letters.ERROR_LENGTH]), seconds, letter.id),
        )
