"""Decides how often a bridge sends: a few events at once, many events in larger tasks."""

from __future__ import annotations

from outbox.conf import BridgePolicy

__all__ = ["SendInterval"]

_A_MOMENT = 0.5


class SendInterval:
    """The time between two sends. A task costs milliseconds of processor in the bridge, in Redis and in the
    worker, whatever it carries. So a lone event is sent at once, further sends are `send_interval` apart,
    those of a busy handler `busy_interval`, and events that fill a task never wait. Times are seconds of one
    clock.
    """

    def __init__(self, policy: BridgePolicy) -> None:
        self._policy = policy
        self._last = self._next = 0.0

    def is_due(self, now: float, *, events: int, size: int) -> bool:
        """Whether to send the events that are waiting; `size` in bytes."""
        fills_a_task = events >= self._policy.chunk_events or size >= self._policy.chunk_bytes
        return fills_a_task or now >= self._next

    def left(self, now: float) -> float:
        """Seconds until events that do not fill a task are due; 0 if they are due."""
        return max(0.0, self._next - now)

    def is_steady(self, now: float) -> bool:
        """Whether events were sent a moment ago, so that more may be arriving."""
        return now - self._last < _A_MOMENT

    def note_sent(self, now: float, *, events: int) -> None:
        """Note a send while `events` were waiting. Events that did not fit count again at the next send."""
        is_busy = events > self._policy.busy_rate * (now - self._last)
        self._last = now
        self._next = now + (self._policy.busy_interval if is_busy else self._policy.send_interval)
