"""The vocabulary of watching the system: the hops of the pipeline, and the alarms.

An app declares both in its wiring.py. The page of operators, `manage.py ops status` and the rules of
Prometheus judge by the same alarms: docker/tests/test_alerts.py holds alerts.yml to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["AMBER", "GREEN", "GREY", "RED", "WITHOUT", "Alarm", "Hop", "State", "TimeLeft"]

State = Literal["green", "grey", "amber", "red"]
GREEN: State = "green"
GREY: State = "grey"  # not known
AMBER: State = "amber"
RED: State = "red"
# How bad it is that a server is unavailable, for the page and for /health/ready.
WITHOUT: Mapping[str, State] = {"database": RED, "redis": AMBER, "kafka": AMBER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One threshold of one figure.

    name      name of the rule, and of its section in docs/operations.md
    figure    series of Prometheus, with the rule's selector if it has one: `x_seconds{reason="ready"}`
    bound     the alarm is on while the figure is above it; with `at`, while the figure equals it
    seconds   for which the condition must have been met
    critical  the alarm is red, otherwise amber
    growing   the figure must also be higher than it was ten minutes before
    absent    a figure that is not there counts as too high
    rises     the figure is a counter: what it has risen by within so many seconds counts (outbox/process/rises.py); 0: it
              is none
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
        """Whether the figure grows with time: one that is 50 s over the bound has been over it for 50 s."""
        return self.figure.partition("{")[0].endswith("_seconds")

    def is_met_by(self, value: float) -> bool:
        return value == self.bound if self.at else value > self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLeft:
    """A deadline at a hop: `left` of `whole` seconds remain. `standing`: how far it is; `ends`: what happens
    then."""

    name: str
    left: float
    whole: float
    standing: str
    ends: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One station of the pipeline as it is now. Ages and times are seconds.

    name     its name, unique within its group
    group    the heading above it
    waits    how many things wait before it; None: unknown, or nothing can wait
    counted  the bound of that count; 0: everything was counted
    oldest   age of the oldest waiting thing; None: unknown
    done     a counter that only rises, from which the rate is computed; None: there is none
    unit     what is counted
    figures  series -> value, for the alarms
    since    series -> how long it is known to have its value
    notes    further facts, one short text each
    page     address of the page about it in this site
    subject  its name in the actions of the page of operators, if that differs from `name`
    times    its deadlines
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
