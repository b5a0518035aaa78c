"""The breaker around Kafka, against its rule in a few lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outbox.breaker import machine
from outbox.rabbitmq.breaker import Breaker

REQUESTS, SHARE, SECONDS = 5, 0.6, 30.0


def a_breaker() -> Breaker:
    return Breaker(requests=REQUESTS, share=SHARE, seconds=SECONDS)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=40))
def test_against_its_rule(looks: list[tuple[bool, float]]) -> None:
    breaker, now = a_breaker(), 0.0
    recent: list[bool] = []
    until: float | None = None
    for success, seconds in looks:
        now += seconds
        if until is not None and now < until:
            pass
        elif until is not None:
            recent, until = [], None if success else now + SECONDS
        else:
            recent = [*recent, success][-REQUESTS:]
            failed = recent.count(False)
            if not success and len(recent) == REQUESTS and failed >= SHARE * REQUESTS:
                recent, until = [], now + SECONDS
        state = breaker.note(success=success, now=now)
        expected = machine.CLOSED if until is None else machine.OPEN
        assert state is expected


def test_fewer_requests_than_the_threshold_open_nothing() -> None:
    breaker = a_breaker()
    for now in range(REQUESTS - 1):
        assert breaker.note(success=False, now=now) == machine.CLOSED
    assert breaker.note(success=False, now=REQUESTS) == machine.OPEN


def test_after_its_time_one_outcome_decides() -> None:
    breaker = a_breaker()
    for _ in range(REQUESTS):
        breaker.note(success=False, now=0.0)
    assert breaker.state(SECONDS - 0.1) == machine.OPEN
    assert breaker.state(SECONDS) == machine.HALF_OPEN
    assert breaker.note(success=False, now=SECONDS) == machine.OPEN
    assert breaker.note(success=True, now=2 * SECONDS) == machine.CLOSED
