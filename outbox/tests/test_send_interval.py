"""The pace of a bridge, by a clock of its own."""

from __future__ import annotations

from itertools import pairwise

import pytest

from outbox.bridge.send_interval import SendInterval
from outbox.conf import BridgePolicy

POLICY = BridgePolicy(send_interval=0.04, busy_interval=0.08, busy_rate=800.0)
TICK = 0.001


def sends(*, rate: float, begin: float, end: float, pace: SendInterval) -> list[float]:
    """When a pace lets events go that come evenly, looked at every millisecond: seconds between."""
    times, sent = [begin], 0
    for tick in range(round((end - begin) / TICK)):
        now = begin + tick * TICK
        waiting = int(rate * (now - begin)) - sent
        if waiting and pace.is_due(now, events=waiting, size=0):
            pace.note_sent(now, events=waiting)
            sent += waiting
            times.append(now)
    return [round(after - before, 3) for before, after in pairwise(times[1:])]


def test_a_lone_event_goes_at_once() -> None:
    pace = SendInterval(POLICY)
    for now in (10.0, 11.0, 12.0):
        assert pace.is_due(now, events=1, size=0)
        pace.note_sent(now, events=1)


@pytest.mark.parametrize(("rate", "apart"), [(500, 0.04), (2000, 0.08)])
def test_sends_keep_apart_by_the_rate(rate: float, apart: float) -> None:
    between = sends(rate=rate, begin=10.0, end=12.0, pace=SendInterval(POLICY))
    assert all(apart <= each <= apart + 2 * TICK for each in between[3:])
    assert len(between) > 20


def test_it_calms_down() -> None:
    """Also from larger portions, which hold as many events at half the rate."""
    pace = SendInterval(POLICY)
    sends(rate=2000, begin=10.0, end=12.0, pace=pace)
    assert sends(rate=500, begin=12.0, end=13.0, pace=pace)[-1] <= 0.04 + 2 * TICK


def test_a_burst_after_silence_is_not_busy() -> None:
    pace = SendInterval(POLICY)
    pace.note_sent(10.0, events=1)
    pace.note_sent(11.0, events=300)
    assert pace.is_due(11.04, events=1, size=0)


def test_a_whole_chunk_waits_for_nothing() -> None:
    pace = SendInterval(POLICY)
    pace.note_sent(10.0, events=500)
    assert not pace.is_due(10.001, events=999, size=2**20 - 1)
    assert pace.is_due(10.001, events=1000, size=0)
    assert pace.is_due(10.001, events=100, size=2**20)
