"""Beat's audit: a bounded look at a time, from a mark on (guarantees.md#r15). Rows behind the mark that
are not done stand in the table audit_open and are looked at again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from django.db import transaction

from outbox import queries
from outbox.audit.compare import (
    NEXT_ROWS,
    OPEN_ROWS,
    PAGE,
    AuditTally,
    Finding,
    MissingReason,
    add_up,
    read_page,
)
from outbox.database import jobs
from outbox.database.ask import changed_by, row_of
from outbox.declaration import Route
from outbox.kafka.admin import TopicState

__all__ = ["behind_seconds", "forget_handler", "settled_id", "watch"]

# Beat's audit leaves younger events out, because nearly all of them are done a moment later.
GRACE_SECONDS = 30.0
OPEN_LIMIT = 5000  # of one handler; with so many open events beat's audit goes no further
WATCH_SECONDS = 6.0  # for all handlers together, of the ten between two beats
# The pause after a page, as a multiple of its time: other work needs the processor more. Without pauses 360,000
# events a minute take a third of a core for three seconds without a break, twice a minute.
REST = 2.0
BEHIND_SECONDS = 60.0  # if the first event that it has not read is older, the audit makes no pauses
WRITERS_SECONDS = 1.0


def watch(
    route: Route, logs: Mapping[str, TopicState], *, seconds: float = WATCH_SECONDS
) -> dict[tuple[str, MissingReason], AuditTally]:
    """Check the open events again, then continue from the mark. Bounded in time and rows, with
    a rest after each page unless the audit is late.

    Returns the tallies of the open events before the mark.
    """
    give_up = time.monotonic() + seconds
    rest = 0.0 if behind_seconds(route.handler) > BEHIND_SECONDS else REST
    tallies: dict[tuple[str, MissingReason], AuditTally] = {}
    again = read_page(route, logs, OPEN_ROWS, (route.handler,))
    _store_open(route.handler, again.findings, replace=True)
    add_up(again.findings, tallies)
    limit = settled_id()
    found = len(again.findings)
    while limit and found < OPEN_LIMIT and (begun := time.monotonic()) < give_up:
        mark = jobs.read_mark(_mark(route.handler))
        with transaction.atomic():
            page = read_page(route, logs, NEXT_ROWS, (mark, PAGE), grace=GRACE_SECONDS, last=limit)
            if not page.rows or page.last_id <= mark:
                break
            if not jobs.move_mark(_mark(route.handler), old=mark, new=page.last_id):
                break  # a replay has begun
            _store_open(route.handler, page.findings, replace=False)
        add_up(page.findings, tallies)
        found += len(page.findings)
        if page.rows < PAGE:
            break
        now = time.monotonic()
        time.sleep(max(0.0, min(rest * (now - begun), give_up - now)))
    return tallies


def behind_seconds(handler: str) -> float:
    """Age of the first event that beat's audit has not looked at; 0 if there is none older than
    the newest it leaves alone."""
    row = row_of(
        "SELECT extract(epoch FROM clock_timestamp() - created_at)::float FROM event_outbox"
        " WHERE id > %s ORDER BY id LIMIT 1",
        (jobs.read_mark(_mark(handler)),),
    )
    age = float(row[0]) if row else 0.0
    return age if age > GRACE_SECONDS else 0.0


def forget_handler(handler: str) -> None:
    """Start the handler's audit again from the first row; inside the transaction of a replay."""
    changed_by(
        "UPDATE outbox_upkeep SET row_id = 0, done_at = clock_timestamp() WHERE name = %s",
        (_mark(handler),),
    )
    changed_by("DELETE FROM audit_open WHERE handler = %s", (handler,))


def _mark(handler: str) -> str:
    return f"audit:{handler}"


def settled_id() -> int:
    """An id up to which no transaction can still add a row; 0 while a writer stays open.

    Ids are given before commit, so the highest visible id says nothing about lower ones
    (guarantees.md#r4). But a writer holds a lock on the table until it ends: when all writers
    of the last look have ended, the rows up to that id are settled."""
    give_up = time.monotonic() + WRITERS_SECONDS
    highest = int(row_of("SELECT coalesce(max(id), 0) FROM event_outbox")[0])
    writers = queries.open_writers()
    while writers:
        if time.monotonic() > give_up:
            return 0
        time.sleep(0.02)
        writers &= queries.open_writers()
    return highest


def _store_open(handler: str, findings: Sequence[Finding], *, replace: bool) -> None:
    ids = [each.outbox_id for each in findings]
    if replace:
        changed_by(
            "DELETE FROM audit_open WHERE handler = %s AND outbox_id <> ALL(%s::bigint[])",
            (handler, ids),
        )
    changed_by(
        """
        INSERT INTO audit_open (handler, outbox_id, state)
        SELECT %s, outbox_id, state
        FROM unnest(%s::bigint[], %s::text[]) AS open (outbox_id, state) ORDER BY outbox_id
        ON CONFLICT (handler, outbox_id) DO UPDATE SET state = excluded.state
        WHERE audit_open.state <> excluded.state
        """,
        (handler, ids, [each.reason.value for each in findings]),
    )
