"""How long a failed attempt, and a provider that asks to wait, is waited for."""

from __future__ import annotations

import pytest

from notifications.delivery.rules import Claim, backoff, result_of
from notifications.providers.message import HELD, ProviderAnswer


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 2), (2, 8), (3, 32), (4, 128), (5, 300), (1000, 300)]
)
def test_waits_grow_up_to_five_minutes_and_are_spread(failures: int, seconds: float) -> None:
    waits = [backoff(failures) for _ in range(500)]
    assert min(waits) >= 0.8 * seconds
    assert max(waits) <= min(300, 1.2 * seconds)
    assert max(waits) - min(waits) > 0.1 * seconds


@pytest.mark.parametrize("seconds", [1.0, 60.0, 290.0, 300.0])
def test_who_asks_to_wait_is_waited_for_and_five_minutes_at_most(seconds: float) -> None:
    answer = ProviderAnswer(verdict=HELD, status_code=429, hold_seconds=seconds)
    claim = Claim(id="n-1", number=1, channel="sms")
    waits = [result_of(claim, answer, latency_ms=1, probe=False).wait or 0.0 for _ in range(500)]
    assert min(waits) >= seconds
    assert max(waits) <= min(300, 1.1 * seconds)
