"""What waits shows in /metrics: dead letters, paused handlers, held events; zeros too."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from outbox import tasks
from outbox.dead_letters import unknown_type
from outbox.handlers import pause
from outbox.models import DeadLetter, OutboxEvent
from outbox.tests.letters import HANDLER, Applied, chunk, create_positions, event, run
from outbox.upkeep import gauges

pytestmark = pytest.mark.django_db


def gauge(name: str, **labels: str) -> float:
    tasks.measure_backlog()
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None, name
    return value


def letters_in(state: str) -> float:
    return gauge("dead_letters_open", handler=HANDLER, state=state)


def test_open_letters_are_counted_by_state_with_their_age() -> None:
    create_positions()
    run(Applied("bad"), chunk([event("bad"), event("after"), event("later")]))
    DeadLetter.objects.filter(payload="bad").update(created_at="2026-01-01T00:00:00Z")
    assert [letters_in(state) for state in ("retrying", "parked", "dead")] == [1, 2, 0]
    assert gauge("dead_letters_oldest_seconds", handler=HANDLER) > 86_400
    DeadLetter.objects.update(state=DeadLetter.State.APPLIED)
    assert [letters_in(state) for state in ("retrying", "parked", "dead")] == [0, 0, 0]
    assert gauge("dead_letters_oldest_seconds", handler=HANDLER) == 0


def test_many_letters_of_a_handler_hide_no_other() -> None:
    for handler, count in ((HANDLER, 5), ("late", 1)):
        DeadLetter.objects.bulk_create(
            DeadLetter(
                handler=handler,
                event_id=uuid4(),
                topic="t",
                key=f"{number}",
                type="NEW",
                state=state,
                error=f"unknown type NEW: release {number % 2} does not know it",
            )
            for state in (DeadLetter.State.DEAD, DeadLetter.State.PARKED)
            for number in range(count)
        )
    counted = {(each.handler, each.state): each.letters for each in gauges.open_letters(3)}
    assert counted == {
        (HANDLER, "dead"): 3,
        (HANDLER, "parked"): 3,
        ("late", "dead"): 1,
        ("late", "parked"): 1,
    }
    unknown = Counter[str]()
    for (handler, _, _), letters in unknown_type.count_open(3).items():
        unknown[handler] += letters
    assert unknown == {HANDLER: 3, "late": 1}


def test_a_paused_handler_shows_and_a_tripped_one_as_such() -> None:
    create_positions()
    assert gauge("handler_paused", handler=HANDLER) == 0
    pause.pause_handler(HANDLER, reason="a look", by="ann")
    assert gauge("handler_paused", handler=HANDLER) == 1
    assert gauge("handler_circuit_open", handler=HANDLER) == 0
    pause.resume_handler(HANDLER, by="ann")
    run(Applied("bad"), chunk([event("bad", key=f"k{number}") for number in range(30)]))
    assert gauge("handler_circuit_open", handler=HANDLER) == 1


def test_held_events_are_counted() -> None:
    OutboxEvent.objects.create(
        event_id="11111111-2222-3333-4444-555555555555",
        lane=1,
        topic="t",
        key="k",
        type="T",
        source="/",
        payload="{}",
        status=OutboxEvent.Status.HELD,
    )
    assert gauge("outbox_held_events") == 1
