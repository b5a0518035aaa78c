"""Redrives that meet each other or a chunk: the effect runs once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from django.db import connection, transaction

from devtools.testing.patience import PATIENCE
from outbox.dead_letters import due, redrive
from outbox.envelope import EventEnvelope
from outbox.inbox import positions
from outbox.models import DeadLetter
from outbox.tests.letters import (
    HANDLER,
    ROUTE,
    TOPIC,
    Applied,
    chunk,
    create_positions,
    event,
    make_due,
    redrive_due,
    run,
    states,
)


def redrive_due_to(order: list[str]) -> None:
    applied = Applied()
    redrive_due(applied)
    order += applied.payloads


@pytest.mark.django_db(transaction=True)
class TestConcurrently:
    @pytest.fixture(autouse=True)
    def head(self, transactional_db: None) -> None:
        create_positions()
        run(Applied("1"), chunk([event("1"), event("2")]))
        make_due()

    def in_threads(self, *work: Any) -> None:
        def closing(step: Any) -> None:
            step()
            connection.close()

        threads = [threading.Thread(target=closing, args=(step,)) for step in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def test_two_redrives_at_once_apply_once(self) -> None:
        applied = Applied()
        [claim] = due.claim_due(ROUTE)

        def redrive_it() -> None:
            redrive.run_letters(handler=HANDLER, letters=[claim], effect=applied)

        self.in_threads(*[redrive_it] * 4)
        assert (applied.payloads, states()) == (["1", "2"], ["applied", "applied"])

    def test_a_busy_position_means_later_and_costs_no_try(self) -> None:
        applied = Applied()
        [claim] = due.claim_due(ROUTE)
        with transaction.atomic():
            positions.lock_positions(HANDLER, [(TOPIC, 0)])
            self.in_threads(
                lambda: redrive.run_letters(handler=HANDLER, letters=[claim], effect=applied)
            )
        assert applied.payloads == []
        assert DeadLetter.objects.earliest("id").attempts == 1
        make_due()
        assert redrive_due(applied) == 2

    def test_a_chunk_that_meets_a_redrive_waits_for_it(self) -> None:
        inside, go_on = threading.Event(), threading.Event()
        order: list[str] = []

        def slow(events: Sequence[EventEnvelope]) -> None:
            inside.set()
            go_on.wait(0.3)
            order.extend(item.payload for item in events)

        def meet() -> None:
            assert inside.wait(PATIENCE)
            applied = Applied()
            assert run(applied, chunk([event("3"), event("x", key="x")], first=12)) >= 1
            order.extend(applied.payloads)

        [claim] = due.claim_due(ROUTE)
        self.in_threads(
            lambda: redrive.run_letters(handler=HANDLER, letters=[claim], effect=slow), meet
        )
        make_due()
        redrive_due_to(order)
        assert [item for item in order if item != "x"] == ["1", "2", "3"]
