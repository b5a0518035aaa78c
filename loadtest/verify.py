"""What became of the accepted orders of a run: lost, stored twice, and when each took effect. An effect
is visible when handler `record_sales` has its receipt, which commits with the figures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from eventsite.reports.recount import HANDLER, compare
from loadtest.client import Client, Failed, run_with
from loadtest.histogram import Histogram
from loadtest.sending import for_each
from loadtest.tally import LoadTally
from outbox import conf
from outbox.database.ask import row_of, rows_of

__all__ = ["LoadVerdict", "database_now", "verify_by_database", "verify_by_http"]

MICRO = 1_000_000
CLOCK_LOOKS = 10


@dataclass(slots=True, kw_only=True)
class LoadVerdict:
    """How it was looked at ("database" or "http"), and what was found.

    missing         accepted orders that are not stored
    without_effect  accepted and stored, but not applied when the waiting ended; None over HTTP,
                    which does not show it
    unchecked       orders about which the server did not answer, over HTTP
    answered_twice  answers that repeat the order id of another
    stored_twice    orders beyond the first of their request; None over HTTP
    unanswered      orders stored for requests that got no good answer: timeouts and cut connections;
                    None over HTTP
    effect          from the answer to the effect, microseconds; None over HTTP, which cannot show it
    figures         sales figures that differ from their recount, an effect applied twice among
                    them; None over HTTP
    waited          seconds until every effect was there, or until it was given up
    """

    how: str
    missing: int = 0
    without_effect: int | None = None
    unchecked: int = 0
    answered_twice: int = 0
    stored_twice: int | None = None
    unanswered: int | None = None
    effect: Histogram | None = None
    figures: int | None = None
    waited: float = 0.0
    examples: list[UUID] = field(default_factory=list)  # of lost orders

    @property
    def lost(self) -> int | None:
        """None where effects were not looked for: then nobody knows."""
        return None if self.without_effect is None else self.missing + self.without_effect

    @property
    def duplicates(self) -> int | None:
        """None where what is stored was not counted."""
        return None if self.stored_twice is None else self.answered_twice + self.stored_twice


def verify_by_database(tally: LoadTally, run: str, *, within: float) -> LoadVerdict:
    """Look at every accepted order in the stack's own database, waiting at most `within` seconds
    for the effects that are still under way."""
    begin = time.monotonic()
    found = LoadVerdict(
        how="database", without_effect=0, effect=Histogram(), answered_twice=_repeated(tally)
    )
    ahead = _clock_ahead()
    for ids, answered_at in tally.batches():
        while (without := _without_effect(ids)) and time.monotonic() < begin + within:
            time.sleep(0.2)
        _judge(found, ids, [at + ahead for at in answered_at], without)
    found.waited = time.monotonic() - begin
    stored, requests = _stored(run)
    found.stored_twice = stored - requests
    found.unanswered = max(0, requests - (tally.accepted - found.answered_twice - found.missing))
    found.figures = compare().different
    return found


def _repeated(tally: LoadTally) -> int:
    ids = bytes(tally.ids)
    return tally.accepted - len({ids[at : at + 16] for at in range(0, len(ids), 16)})


def _clock_ahead() -> float:
    """Seconds by which the database's clock is ahead of ours, by the quickest of some looks."""
    looks = []
    for _ in range(CLOCK_LOOKS):
        before = time.time()
        theirs = database_now().timestamp()
        after = time.time()
        looks.append((after - before, theirs - (before + after) / 2))
    return min(looks)[1]


def database_now() -> datetime:
    """The database's clock."""
    now: datetime = row_of("SELECT clock_timestamp()")[0]
    return now


# The accepted orders that are stored, and their events; the first is that of topic order-events.
_ACCEPTED = """
    accepted AS (SELECT * FROM unnest(%(ids)s::uuid[], %(moments)s::float8[]) AS each (id, moment)),
    known AS (
        SELECT accepted.id, accepted.moment, change.event_ids
        FROM accepted JOIN orders ON orders.id = accepted.id
        LEFT JOIN order_changes change
               ON change.order_id = accepted.id AND change.from_status IS NULL
    )"""

# No figures hold it, or another event of it that somebody here listens to is not applied. What the
# outbox has deleted is done.
_WITHOUT_EFFECT = """
    SELECT id FROM known WHERE NOT EXISTS (
        SELECT FROM inbox_receipt receipt
        WHERE receipt.event_id = known.event_ids[1]
          AND receipt.handler = %(handler)s AND receipt.outcome = 0)
    UNION
    SELECT known.id
    FROM known, unnest(known.event_ids) AS wanted (event_id)
    JOIN event_outbox event ON event.event_id = wanted.event_id AND event.topic = ANY(%(heard)s)
    WHERE NOT EXISTS (
        SELECT FROM inbox_receipt receipt
        WHERE receipt.event_id = event.event_id AND receipt.outcome = 0)"""


def _without_effect(ids: Sequence[UUID]) -> list[UUID]:
    return [row[0] for row in rows_of(f"WITH {_ACCEPTED} {_WITHOUT_EFFECT}", _parameters(ids))]


def _parameters(ids: Sequence[UUID], moments: Sequence[float] = ()) -> dict[str, Any]:
    return {
        "ids": list(ids),
        "moments": list(moments),
        "handler": HANDLER,
        "heard": [route.topic.name for route in conf.routes()],
    }


def _judge(
    found: LoadVerdict, ids: Sequence[UUID], moments: Sequence[float], without: Sequence[UUID]
) -> None:
    """Add one batch; `moments`: when each was answered, by the database's clock; `without`: no effect of these."""
    parameters = _parameters(ids, moments)
    missing = rows_of(
        f"WITH {_ACCEPTED} SELECT id FROM accepted"
        " WHERE NOT EXISTS (SELECT FROM known WHERE known.id = accepted.id)",
        parameters,
    )
    effects = rows_of(
        f"""
        WITH {_ACCEPTED}
        SELECT extract(epoch FROM receipt.applied_at)::float8 - moment
        FROM known JOIN inbox_receipt receipt ON receipt.event_id = known.event_ids[1]
        WHERE receipt.handler = %(handler)s AND receipt.outcome = 0
        """,
        parameters,
    )
    assert found.effect is not None
    for (seconds,) in effects:
        found.effect.record(int(seconds * MICRO))
    found.missing += len(missing)
    found.without_effect = (found.without_effect or 0) + len(without)
    found.examples = [*found.examples, *(row[0] for row in missing), *without][:10]


def _stored(run: str) -> tuple[int, int]:
    """Orders stored for requests of this run, and how many requests they come from."""
    stored, requests = row_of(
        """
        SELECT count(DISTINCT key), count(DISTINCT correlation_id) FROM event_outbox
        WHERE type = 'ORDER_CREATED' AND starts_with(correlation_id, %s)
        """,
        (f"{run}-",),
    )
    return int(stored), int(requests)


def verify_by_http(
    tally: LoadTally, url: str, *, timeout: float, headers: Mapping[str, str]
) -> LoadVerdict:
    """Ask for every accepted order, a few at once. For a system whose database is out of reach."""
    found = LoadVerdict(how="http", answered_twice=_repeated(tally))
    begin = time.monotonic()
    client = Client(url, timeout=timeout, headers=headers)

    async def ask(order_id: UUID) -> None:
        try:
            status, _ = await client.request(b"GET", b"/orders/" + str(order_id).encode())
        except Failed:
            status = 0
        if status == 404:
            found.missing += 1
            found.examples = [*found.examples, order_id][:10]
        elif status != 200:
            found.unchecked += 1

    run_with(client, for_each((id_ for ids, _ in tally.batches() for id_ in ids), ask))
    found.waited = time.monotonic() - begin
    return found
