"""Sending a claimed batch and marking what Kafka acknowledged, in parallel: each part of a large batch
is marked, by a thread on the same connection, while Kafka takes the next. A part is sent only if all
parts before it were acknowledged completely, so the order of a key holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

from django.db import connection

from outbox.conf import DrainPolicy
from outbox.database.arrays import array_literal
from outbox.drain.produce import Produced, produce
from outbox.drain.state import RefusedKeys
from outbox.kafka.producer import BatchDelivery
from outbox.lanes.pending import PendingEvent

__all__ = ["acknowledged_prefix", "send_and_settle"]

_SETTLE = """
    UPDATE event_outbox
    SET status = 1, published_at = clock_timestamp(),
        "partition" = sent."partition", "offset" = sent."offset"
    FROM unnest(%s::bigint[], %s::smallint[], %s::bigint[]) AS sent (id, "partition", "offset")
    WHERE event_outbox.id = sent.id
"""


def send_and_settle(
    pending: Sequence[PendingEvent], policy: DrainPolicy, *, refused_before: RefusedKeys
) -> tuple[Produced, list[PendingEvent]]:
    """Send the events in the order given, and mark the acknowledged ones as published in the
    open transaction. Returns Kafka's reports and the acknowledged events.

    `flush_timeout` bounds all parts together. Raises what the database raises.
    """
    deadline = time.monotonic() + policy.flush_timeout
    whole = Produced(size=len(pending))
    settled: list[PendingEvent] = []
    parts = max(1, len(pending) // policy.part_events)
    size = max(1, -(-len(pending) // parts))
    with connection.cursor() as cursor, _marking(cursor, beside=parts > 1) as mark:
        for start in range(0, len(pending), size):
            part = pending[start : start + size]
            sent = produce(part, deadline=deadline, refused_before=refused_before)
            whole.add(sent, start)
            indexes = acknowledged_prefix(part, sent)
            if indexes:
                rows = [(part[i].id, part[i].partition, sent.acknowledged[i]) for i in indexes]
                mark([array_literal(column) for column in zip(*rows, strict=True)])
                settled += [part[i] for i in indexes]
            if not sent.complete:
                break
    return whole, settled


@contextmanager
def _marking(cursor: Any, *, beside: bool) -> Iterator[Callable[[Sequence[str]], object]]:
    """What marks one part as published, given the columns of _SETTLE; `beside`: on a thread of its own,
    while the caller sends the next. A batch that is a single part has nothing to send meanwhile, and a
    thread costs more than its UPDATE waits. What the database raises comes at the call or at the end."""
    if not beside:
        yield partial(cursor.execute, _SETTLE)
        return
    under_way: list[Future[Any]] = []

    def mark(columns: Sequence[str]) -> None:
        # In the context of the drain: it has the time that is left to wait for PostgreSQL.
        in_context = copy_context().run
        under_way.append(thread.submit(in_context, cursor.execute, _SETTLE, columns))

    with ThreadPoolExecutor(1, "settle") as thread:
        yield mark
    for each in under_way:
        each.result()


def acknowledged_prefix(pending: Sequence[PendingEvent], delivery: BatchDelivery) -> Sequence[int]:
    """Indexes to settle: of each (topic, key) what was acknowledged before the first that was not."""
    if delivery.complete:
        return range(len(pending))
    open_keys: set[tuple[str, str]] = set()
    settled = []
    for index, event in enumerate(pending):
        if index not in delivery.acknowledged:
            open_keys.add(event.place)
        elif event.place not in open_keys:
            settled.append(index)
    return settled
