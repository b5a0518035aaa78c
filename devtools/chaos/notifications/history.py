"""What is known of one scenario's notifications: what the API answered, and what the provider noted.

All moments are seconds of CLOCK_MONOTONIC, which the processes of a machine share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from devtools.provider.server import Arrival

__all__ = ["AcceptedSend", "Attempted", "End", "Lost", "SeenChange", "SendHistory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedSend:
    """One that was accepted. `at`: when that was answered; `due`: its schedule, None where it has none."""

    channel: str
    priority: str
    at: float
    due: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How the API shows one when everything is over."""

    status: str
    error: str | None = None
    used: int = 0  # attempts that failed
    allowed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """An attempt as the API shows it. `at`: when it was claimed; `outcome`: empty while it is open;
    `begun`: whether a provider was called."""

    at: float
    outcome: str
    status_code: int | None = None
    begun: bool = True


@dataclass(frozen=True, slots=True)
class SeenChange:
    """One message of the status stream, in the order in which they came. `at`: when it was changed, by
    the database's clock."""

    seq: int
    id: str
    status: str
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Senders were killed at `begin`, or stood still from `begin` to `end`.

    in_sends  calls were under way. False: they stood still before they looked at their leases, so
              nothing explains a call of theirs afterwards
    """

    begin: float
    end: float
    in_sends: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SendHistory:
    """All that is known of a scenario's notifications.

    arrivals   at the provider, of these notifications
    cancelled  id -> when its cancel was answered 200
    shown      id -> the final status that was shown while something was broken
    ends       id -> the status that is shown at the end
    attempts   id -> its attempts; at least of those that were not simply claimed and sent once
    changes    what a client of the status stream got, that came back with `since` whenever it was cut off
    gaps       how often the stream reported that changes are not kept
    lost       when senders were killed or stood still
    away       from when to when the provider, Redis, or all senders were not there
    limit      messages a second for a channel
    timeout    seconds that a sender waits for the provider's answer
    """

    accepted: Mapping[str, AcceptedSend] = field(default_factory=dict)
    arrivals: Sequence[Arrival] = ()
    cancelled: Mapping[str, float] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)
    ends: Mapping[str, End] = field(default_factory=dict)
    attempts: Mapping[str, Sequence[Attempted]] = field(default_factory=dict)
    changes: Sequence[SeenChange] = ()
    gaps: int = 0
    lost: Sequence[Lost] = ()
    away: Sequence[tuple[float, float]] = ()
    limit: float = 100.0
    timeout: float = 2.0

    def arrived(self) -> dict[str, list[Arrival]]:
        """Arrivals of each that arrived, the first one first."""
        found: dict[str, list[Arrival]] = {}
        for arrival in sorted(self.arrivals, key=lambda each: each.at):
            found.setdefault(arrival.key, []).append(arrival)
        return found

    def is_taken(self, arrival: Arrival) -> bool:
        """Whether the provider said yes to it, in time to be heard."""
        in_time = arrival.answered_at - arrival.at < self.timeout - 0.5
        return 200 <= arrival.status < 300 and in_time

    def ended(self, arrival: Arrival) -> float:
        """When its sender had an answer, or waited no longer."""
        return arrival.answered_at or arrival.at + self.timeout
