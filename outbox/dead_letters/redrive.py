"""Applying the dead letters that `due.py` has leased, in their handler's own task and never through
Kafka (guarantees.md#r12).

`attempts` rises in a transaction before the effect, so a letter that ends its process uses one up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import takewhile

import structlog
from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Exists, F
from django.db.models.functions import Greatest

from outbox import conf, metrics, tracing
from outbox.conf import BRIDGE, REDRIVE
from outbox.database.ask import rows_of
from outbox.database.errors import describe, is_timeout, is_transient
from outbox.database.leases import Lease
from outbox.dead_letters import letters as letter_rows
from outbox.dead_letters import unknown_type
from outbox.dead_letters.letter import Letter
from outbox.declaration import Route
from outbox.envelope import EventEnvelope, correlation_fields, event_fields, to_column
from outbox.inbox import positions, receipts
from outbox.inbox.time_limit import limit_transaction
from outbox.models import CLOCK, DeadLetter, InboxReceipt

__all__ = [
    "Claim",
    "apply_letters",
    "free_places",
    "lock_place",
    "run_letters",
]

REDRIVER = "redrive"

Claim = tuple[int, int]
"""(id of a letter, its attempts when it was claimed). A task that runs late does nothing if another one has
tried the letter since. JSON turns it into a list."""

log = structlog.get_logger("outbox.redrive")


def run_letters(
    *, handler: str, letters: Sequence[Claim], effect: Callable[[Sequence[EventEnvelope]], None]
) -> int:
    """Try these letters and, after one is applied, the letters behind it; returns the number of
    events applied. Never raises: a letter that is not applied stays due."""
    if not letters:
        return 0
    route = conf.route_named(handler)
    give_up = time.monotonic() + BRIDGE.effect_timeout
    applied = 0
    for number, (letter_id, attempts) in enumerate(letters):
        try:
            if time.monotonic() > give_up:
                # Due again before their leases end, because they were not begun.
                letter_rows.LEASES.give_back([Lease(*claim) for claim in letters[number:]])
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
    """Try the head alone, then its followers in growing batches, and after a failure one by one."""
    applied, size, one_by_one = 0, 1, False
    following: Claim | None = claim
    while following is not None:
        if applied and time.monotonic() > give_up:
            letter_rows.LEASES.give_back([Lease(*following)])
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
    """Count the attempt before it is made. Returns the head and up to size - 1 of its followers; nothing if the
    letter is resolved, was tried since it was claimed, or has a type that this process does not know. A
    follower of such a type ends the run."""
    letter_id, attempts = claim
    if attempts >= route.tries:
        return []
    with transaction.atomic():
        claimed = [Lease(letter_id, attempts)]
        if not letter_rows.LEASES.renew(claimed, seconds=REDRIVE.lease, begin=True):
            return []
        [head] = letter_rows.lock_letters(id=letter_id)
        if unknown_type.is_unknown(route, head.event.type):
            unknown_type.send_back(head, claimed[0])
            return []
        if size == 1 or not route.ordered:
            return [head]
        run = letter_rows.head_of(route.handler, head.place, limit=size)
    if run[0].id != head.id:
        return [head]
    return list(takewhile(lambda each: not unknown_type.is_unknown(route, each.event.type), run))


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
        batch = _pass_by(route, _still_open(batch))
        mine = receipts.settle_receipts(
            handler, [letter.event.event_id for letter in batch], InboxReceipt.Outcome.APPLIED
        )
        events = [letter.event for letter in batch if letter.event.event_id in mine]
        if events:
            effect(events)
        letter_rows.resolve([letter.id for letter in batch], DeadLetter.State.APPLIED, by=REDRIVER)
        claims = free_places([first], ordered=route.ordered, delay=REDRIVE.lease)
    metrics.REDRIVEN.labels(handler, "applied").inc(len(events))
    log.info(
        "redriven",
        handler=handler,
        topic=first.event.topic,
        key=first.event.key,
        events=len(events),
        letters=[letter.id for letter in batch],
        **correlation_fields(letter.event.trace.correlation_id for letter in batch),
    )
    return len(events), claims[0] if claims else None


def _still_open(batch: Sequence[Letter]) -> list[Letter]:
    """The letters that are still open: a replay of the handler, or an operator's discard, may
    have closed some since they were read."""
    open_ids = {
        letter.id for letter in letter_rows.lock_letters(id__in=[each.id for each in batch])
    }
    return [letter for letter in batch if letter.id in open_ids]


def _pass_by(route: Route, batch: Sequence[Letter]) -> list[Letter]:
    """Resolve the letters that were parked for a type which is known by now and which the handler
    does not subscribe to; returns the others."""
    passing = [letter for letter in batch if unknown_type.passes_by(route, letter)]
    if not passing:
        return list(batch)
    receipts.settle_receipts(
        route.handler,
        [letter.event.event_id for letter in passing],
        InboxReceipt.Outcome.DISCARDED,
    )
    letter_rows.resolve(
        [letter.id for letter in passing],
        DeadLetter.State.DISCARDED,
        by=REDRIVER,
        note="the handler does not subscribe to this type",
    )
    return [letter for letter in batch if letter not in passing]


def lock_place(letter: Letter) -> None:
    """Lock the position whose partition the letter comes from. Raises ConnectionError if its
    handler is paused there."""
    key = letter.place[:2]
    position = positions.lock_positions(letter.handler, [key], wait=REDRIVE.lock_wait).get(key)
    if position is not None and position.paused:
        raise ConnectionError("The handler is paused, so its letters wait.")


def free_places(letters: Sequence[Letter], *, ordered: bool, delay: float = 0.0) -> Sequence[Claim]:
    """After letters of one partition were resolved: make what waits behind them in each key the
    head, due after `delay` seconds; returns the claims of the new heads. With nothing open, the
    partition stops asking for parked keys.

    A handler that was ordered once may have parked letters, which nothing else would wake.
    """
    handler, (topic, partition) = letters[0].handler, letters[0].place[:2]
    claims = rows_of(
        """
        UPDATE dead_letter
        SET state = 0, next_attempt_at = clock_timestamp() + make_interval(secs => %s)
        FROM unnest(%s::text[]) AS place (key) CROSS JOIN LATERAL (
            SELECT id FROM dead_letter AS waiting
            WHERE waiting.handler = %s AND waiting.topic = %s AND waiting."partition" = %s
              AND md5(waiting.key) = md5(place.key) AND waiting.key = place.key
              AND waiting.state < 3 AND (waiting.state = 1 OR %s)
            ORDER BY id LIMIT 1
        ) AS head
        WHERE dead_letter.id = head.id AND dead_letter.state = 1
        RETURNING dead_letter.id, attempts
        """,
        (
            delay,
            sorted({to_column(letter.event.key) for letter in letters}),
            *(handler, topic, partition, ordered),
        ),
    )
    if not claims:
        is_open = DeadLetter.objects.filter(
            handler=handler, topic=topic, partition=partition, state__lt=DeadLetter.State.APPLIED
        )
        row = positions.row_at(handler, (topic, partition)).filter(letters_open=True)
        row.filter(~Exists(is_open)).update(letters_open=False)
    return claims


def _failed(route: Route, letter: Letter, error: Exception) -> None:
    """Make the letter due again after its backoff, or dead after its last attempt."""
    metrics.REDRIVEN.labels(route.handler, "failed").inc()
    log.warning(
        "redrive_failed",
        handler=route.handler,
        event_id=str(letter.event.event_id),
        attempts=letter.attempts,
        error=describe(error),
        **event_fields(letter.event.trace),
    )
    with transaction.atomic():
        still = letter_rows.lock_letters(id=letter.id, state=DeadLetter.State.RETRYING)
        if still and letter.attempts >= route.tries:
            bury_letters(still, describe(error))
        elif still:
            wait = timedelta(seconds=letter_rows.backoff(route, letter.attempts))
            DeadLetter.objects.filter(id=letter.id).update(
                error=to_column(describe(error)[: letter_rows.ERROR_LENGTH]),
                failed_at=CLOCK,
                next_attempt_at=CLOCK + wait,
            )


def bury_letters(letters: Sequence[Letter], error: str = "") -> None:
    letter_rows.bury([replace(each, error=error or each.error) for each in letters])
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
            advice=f"manage.py dead_letters inspect {letter.id}, then manage.py dead_letters replay"
            f" {letter.id} or manage.py dead_letters discard {letter.id}",
            **event_fields(letter.event.trace),
        )


def _give_back(letter: Letter, reason: str) -> None:
    """Take the attempt back, because the letter is not the cause of the failure."""
    log.info(
        "redrive_given_back",
        handler=letter.handler,
        letter=letter.id,
        reason=reason,
        **event_fields(letter.event.trace),
    )
    DeadLetter.objects.filter(id=letter.id, state=DeadLetter.State.RETRYING).update(
        attempts=Greatest(F("attempts") - 1, 0),
        next_attempt_at=CLOCK + timedelta(seconds=REDRIVE.again),
    )
