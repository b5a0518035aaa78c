"""Dead letters that are due: leased, and handed to their handler's task."""

from __future__ import annotations

import structlog
from django.db import transaction

from outbox import conf, tracing
from outbox.conf import BRIDGE, REDRIVE
from outbox.database.ask import rows_of
from outbox.database.errors import describe, is_transient
from outbox.dead_letters.letter import Letter
from outbox.dead_letters.letters import LEASES, lock_letters
from outbox.dead_letters.redrive import Claim, bury_letters
from outbox.declaration import Route
from outbox.envelope import event_fields
from outbox.process import task_queue

__all__ = ["claim_due", "handlers_due", "send_due"]

log = structlog.get_logger("outbox.redrive")


def send_due() -> int:
    """Send the letters that are due to their handlers' tasks; returns how many. An error of one
    handler is logged and does not affect the others."""
    sent = 0
    for handler in handlers_due():
        try:
            sent += _send_due_of(conf.route_named(handler))
        except Exception as error:
            log.exception("redrive_not_claimed", handler=handler, error=describe(error))
    return sent


def _send_due_of(route: Route) -> int:
    if task_queue.queue_length(route.queue) > BRIDGE.queue_bound:
        return 0
    sent = 0
    with tracing.step(f"redrive {route.handler}", tracing.PRODUCER) as step:
        claims = claim_due(route)
        if not claims:
            step.forget()
        for begin in range(0, len(claims), REDRIVE.letters_per_task):
            letters = claims[begin : begin + REDRIVE.letters_per_task]
            if not task_queue.send(route, letters=letters):  # due again after their leases
                break
            sent += len(letters)
        step.record({"outbox.letters": sent})
    return sent


def handlers_due() -> list[str]:
    """Handlers with a letter that is due, unless they are paused; one probe of an index each."""
    rows = rows_of(
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
    return [row[0] for row in rows]


def claim_due(route: Route) -> list[Claim]:
    """Lease the due letters of a handler, a bounded number.

    Letters whose attempts all ended their process become dead."""
    with transaction.atomic():
        leases = LEASES.claim(
            REDRIVE.claim,
            seconds=REDRIVE.lease,
            where="handler = %s",
            parameters=(route.handler,),
            begin=False,
        )
        used_up = [lease.id for lease in leases if lease.number >= route.tries]
        for letter in lock_letters(id__in=used_up):
            _bury_or_log(letter)
    return [(lease.id, lease.number) for lease in leases if lease.number < route.tries]


def _bury_or_log(letter: Letter) -> None:
    """In a savepoint of its own: a letter that cannot be made dead is tried again after its
    lease and delays no other."""
    try:
        with transaction.atomic():
            bury_letters([letter])
    except Exception as error:
        if is_transient(error):
            raise
        log.exception(
            "letter_not_buried",
            handler=letter.handler,
            letter=letter.id,
            error=describe(error),
            **event_fields(letter.event.trace),
        )
