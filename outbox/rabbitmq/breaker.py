"""The breaker around Kafka: the machine of outbox.breaker in one process, where one call is one look."""

from __future__ import annotations

from outbox.breaker import machine

__all__ = ["Breaker"]


class Breaker:
    """Open means waiting: nothing is refused and nothing dropped.

    A failure opens it for `seconds` when it makes `share` of the last `requests` outcomes; then the
    next outcome decides: a success closes it, a failure opens it again."""

    def __init__(self, *, requests: int, share: float, seconds: float) -> None:
        self._rule = machine.BreakerRule(
            in_a_row=1,
            at_least=requests,
            share=share,
            window=requests,
            open_seconds=seconds,
            probes=1,
        )
        self._state = machine.BreakerState()
        self._looks = 0

    def state(self, now: float) -> str:
        """CLOSED, HALF_OPEN or OPEN of outbox.breaker.machine."""
        return machine.phase(self._state, self._rule, now)

    def note(self, *, success: bool, now: float) -> str:
        """An outcome; what comes while it is open changes nothing."""
        self._looks += 1
        asked, permits = machine.ask(self._state, self._rule, now, [str(self._looks)])
        outcomes = [machine.CallOutcome(permit.id, permit.epoch, success) for permit in permits]
        self._state = machine.report(asked, self._rule, now, outcomes)
        return self.state(now)
