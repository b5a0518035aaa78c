"""How long a failed attempt is waited for."""

from __future__ import annotations

import pytest

from notifications.delivery.rules import backoff


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 2), (2, 8), (3, 32), (4, 128), (5, 300), (1000, 300)]
)
def test_waits_grow_up_to_five_minutes_and_are_spread(failures: int, seconds: float) -> None:
    waits = [backoff(failures) for _ in range(500)]
    assert min(waits) >= 0.8 * seconds
    assert max(waits) <= min(300, 1.2 * seconds)
    assert max(waits) - min(waits) > 0.1 * seconds
