"""A sender that stands still at one exact point; installed by the app's start.

While the switch `stop-before-sends` is on, the first sender that has claimed something waits, before it
looks at its leases; it says so by `held-before-sends`. Everybody else goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from devtools.chaos.environment import directory
from devtools.chaos.misbehave import LONGEST_HOLD, Switches
from notifications.delivery.rounds import Round, Rounds

__all__ = ["HELD", "STOP", "install"]

STOP, HELD = "stop-before-sends", "held-before-sends"


def install() -> None:
    """Wrap the claims of this process."""
    switches = Switches(directory())
    claim = Rounds.claim

    def claim_and_wait(self: Rounds, under_way: Mapping[tuple[str, str], int]) -> Round:
        found = claim(self, under_way)
        if found.calls and switches.is_on(STOP) and switches.on_first(HELD):
            give_up = time.monotonic() + LONGEST_HOLD
            while switches.is_on(STOP) and time.monotonic() < give_up:
                time.sleep(0.01)
        return found

    Rounds.claim = claim_and_wait  # type: ignore[method-assign]
