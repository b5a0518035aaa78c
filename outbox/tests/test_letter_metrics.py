"""What waits shows in /metrics: dead letters, paused handlers, held events; zeros too."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from outbox import tasks
from outbox.handlers import pause
from outbox.models import DeadLetter, OutboxEvent
from outbox.tests.letters import HANDLER, Applied, chunk, create_positions, event, run

pytestmark = pytest.mark.django_db


def gauge(name: str, **labels: str) -> float:
    tasks.measure_backlog()
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None, name
    return value


def letters(state: str) -> float:
    return gauge("dead_letters_open", handler=HANDLER, state=state)


def test_open_letters_are_counted_by_state_with_their_age() -> None:
    create_positions()
    run(Applied("bad"), chunk([event("bad"), event("after"), event("later")]))
    DeadLetter.objects.filter(payload="bad").update(created_at="2026-01-01T00:00:00Z")
    assert [letters(state) for state in ("retrying", "parked", "dead")] == [1, 2, 0]
    assert gauge("dead_letters_oldest_seconds", handler=HANDLER) > 86_400
    DeadLetter.objects.update(state=DeadLetter.State.APPLIED)
    assert [letters(state) for state in ("retrying", "parked", "dead")] == [0, 0, 0]
    assert gauge("dead_letters_oldest_seconds", handler=HANDLER) == 0


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
