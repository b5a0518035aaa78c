"""What a scenario declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from devtools.chaos.ground import Ground
from devtools.feeders.users import Mix

__all__ = ["Play", "Scenario"]

Play = Callable[[Ground], None]


def _nothing(ground: Ground) -> None:
    pass


def _directly(ground: Ground) -> AbstractContextManager[str] | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One fault under load. All twelve invariants are judged, whatever it does.

    play             breaks things; the load runs while it does
    before           prepares, before the history begins
    after            once everything has settled, before the history is read
    quick            part of `make chaos QUICK=1`
    feeders          requests a second of users of feeds; None: nobody uses feeds, and none are compared
    mix              what these users do
    rate             probe events a second; 0: no load, the scenario writes its own events
    recover_within   seconds from the last fault's end to a normal backlog
    settle_within    seconds from the load's end to the last receipt
    expected_damage  invariant -> what is lost and how it is found, where a promise cannot hold
    log_complete     False where the log in Kafka is lost on purpose
    lane_updates     how often rows of lanes are marked on purpose, which otherwise nobody may
    writer_url       where the writer connects, if not to the server itself
    """

    name: str
    title: str
    play: Play
    before: Play = _nothing
    after: Play = _nothing
    quick: bool = False
    feeders: float | None = None
    mix: Mix = field(default_factory=Mix)
    rate: float = 150.0
    orders_rate: float = 15.0
    recover_within: float = 90.0
    settle_within: float = 120.0
    expected_damage: Mapping[str, str] = field(default_factory=dict)
    log_complete: bool = True
    lane_updates: int = 0
    writer_url: Callable[[Ground], AbstractContextManager[str] | None] = _directly
