"""How often a bridge sends: little soon, much in larger portions."""

from __future__ import annotations

from outbox.conf import BridgePolicy

__all__ = ["SendInterval"]

_A_MOMENT = 0.5


class SendInterval:
    """A task costs milliseconds of processor, in the bridge, in Redis, in the worker's main process
    and in its child, whatever it carries. So a lone event goes at once, others keep
    `send_interval` apart, those of a busy handler `busy_interval`, and what fills a task waits for
    nothing. Times are of one clock, in seconds.
    """

    def __init__(self, policy: BridgePolicy) -> None:
        self._policy = policy
        self._last = self._next = 0.0

    def is_due(self, now: float, *, events: int, size: int) -> bool:
        """Whether to send the events that are waiting; `size` in bytes."""
        fills_a_task = events >= self._policy.chunk_events or size >= self._policy.chunk_bytes
        return fills_a_task or now >= self._next

    def left(self, now: float) -> float:
        """Seconds until events are due that do not fill a task; 0 if they are."""
        return max(0.0, self._next - now)

    def is_steady(self, now: float) -> bool:
        """Whether something was sent a moment ago: then more may be coming in."""
        return now - self._last < _A_MOMENT

    def note_sent(self, now: float, *, events: int) -> None:
        """So many were waiting. What has not fitted counts again, and makes it busier than it is."""
        is_busy = events > self._policy.busy_rate * (now - self._last)
        self._last = now
        self._next = now + (self._policy.busy_interval if is_busy else self._policy.send_interval)
