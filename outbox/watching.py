"""What is watched of the running system, in words: the hops of the pipeline, and what raises an alarm.

An app declares both in its wiring.py. The page of operators, `manage.py ops status` and the rules of
Prometheus judge by the same alarms: docker/tests/test_alerts.py holds alerts.yml to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["AMBER", "GREEN", "GREY", "RED", "Alarm", "Hop", "State", "TimeLeft"]

State = Literal["green", "grey", "amber", "red"]
GREEN: State = "green"
GREY: State = "grey"  # not known
AMBER: State = "amber"
RED: State = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One threshold of one figure.

    name      of the rule, and of its section in docs/operations.md
    figure    series of Prometheus, with a selector where the rule has one: `x_seconds{reason="ready"}`
    bound     the alarm is on while the figure is above it; `at`: while it equals it
    seconds   for so long it must have been so
    critical  red; else amber
    growing   the figure must also be higher than it was ten minutes before
    absent    a figure that is not there counts as too high
    rises     the figure is a counter: what it has risen by within so many seconds counts; 0: it is none
    sentence  `{value}` is the figure in words
    """

    name: str
    figure: str
    bound: float
    sentence: str
    seconds: float = 0
    critical: bool = False
    at: bool = False
    growing: bool = False
    absent: bool = False
    rises: float = 0

    @property
    def is_age(self) -> bool:
        """The figure is a time that passes: what is 50 s over the bound has been over it for 50 s."""
        return self.figure.partition("{")[0].endswith("_seconds")

    def is_met_by(self, value: float) -> bool:
        """Whether the figure is where it should not be."""
        return value == self.bound if self.at else value > self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLeft:
    """Something at a hop that ends badly by itself, in `left` of `whole` seconds. `standing`: how far it is;
    `ends`: what then happens."""

    name: str
    left: float
    whole: float
    standing: str
    ends: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One station of the pipeline as it stands now. Ages and times in seconds.

    name     what it is called, once within its group
    group    the heading that it stands under
    waits    how much waits before it; None: not known, or nothing can
    counted  where the count stopped; 0: it is whole
    oldest   age of the oldest that waits; None: not known
    done     a number that only rises, of which the rate is made; None: there is none
    unit     what is counted
    figures  series -> value, for the alarms
    since    series -> how long its value is known to be so
    notes    what else is to be said, a sentence each
    page     where in the site more of it is found, and what acts on it
    subject  how the actions of the page of operators name it, where not by its name
    times    what ends badly here by itself
    """

    name: str
    group: str
    waits: int | None = None
    counted: int = 0
    oldest: float | None = None
    done: int | None = None
    unit: str = "events"
    figures: Mapping[str, float] = field(default_factory=dict)
    since: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    page: str = ""
    subject: str = ""
    times: tuple[TimeLeft, ...] = ()
