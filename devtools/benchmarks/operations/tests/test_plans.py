"""The benchmark's rows at a hundredth: no look reads a large table whole, and rows stay bounded."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from django.db import connection

from devtools.benchmarks.operations.fill import FULL, event_id, fill, order_id
from operations import journey, pipeline
from operations.past import PastReader
from operations.tests.test_plans import costs
from outbox.admin import search
from outbox.upkeep.gauges import Backlog

# All of the positions: the planner reads a hundred of them whole, and rightly.
AMOUNTS = replace(FULL.share(0.01), positions=FULL.positions)
FILLED = {"orders", "order_changes", "event_outbox", "dead_letter", "bridge_position"}
# What a look may touch: pending rows and positions are read to 10,000, those of one id are few.
OF_A_LOOK = 25_000
OF_A_JOURNEY = 1_000
SEARCHED = 300  # newest events that are looked through for what has no index


@pytest.mark.django_db
def test_looks_and_journeys_stay_bounded_at_a_hundredth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "ROWS_SEARCHED", SEARCHED)
    monkeypatch.setattr(journey, "ANSWERS", SEARCHED)
    with connection.cursor() as cursor:
        assert len(list(fill(cursor, AMOUNTS))) == 5
    # A journey of the newest of each kind and of the oldest, of what is not there, of what has no index.
    for wanted in (
        *(order_id(1), order_id(AMOUNTS.orders), order_id(10**9)),
        *(event_id(1), event_id(AMOUNTS.events), "correlation-7", "customer-7"),
    ):
        for sql, rows, whole in costs(partial(journey.search, wanted)):
            assert not whole & FILLED, (wanted, sql)
            assert rows <= OF_A_JOURNEY, (wanted, rows, sql)
    backlog = Backlog()
    for sql, rows, whole in costs(lambda: pipeline.ask_postgres(backlog, PastReader())):
        assert not whole & FILLED, sql
        assert rows <= OF_A_LOOK, (rows, sql)
    told = pipeline.ask_postgres(Backlog())
    hops = {hop.name: hop for hop in told.hops}
    assert not told.failed
    assert hops["outbox"].waits
    assert sum(group.letters for group in told.letters) == AMOUNTS.letters
    [row] = [row for row in told.handlers if row.status.handler == "record_sales"]
    assert row.positions is not None
    assert len(row.positions) == AMOUNTS.positions


@pytest.mark.django_db
def test_the_rows_are_those_that_were_asked_for() -> None:
    amounts = FULL.share(0.00001)
    with connection.cursor() as cursor:
        list(fill(cursor, amounts))
        cursor.execute(
            "SELECT (SELECT count(*) FROM event_outbox WHERE status = 0),"
            " (SELECT count(*) FROM dead_letter), (SELECT count(*) FROM orders),"
            " (SELECT count(*) FROM bridge_position)"
        )
        assert cursor.fetchone() == (
            amounts.events,
            amounts.letters,
            amounts.orders,
            amounts.positions,
        )
        cursor.execute("SELECT count(*) FROM orders WHERE id = %s", (order_id(amounts.orders),))
        assert cursor.fetchone() == (1,)
