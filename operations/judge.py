"""Decides green, grey, amber or red, in one place for the page, the terminal and the JSON.

The thresholds are those of the alarms (outbox/watching.py), and so are the times for which a condition must
hold. A hop that is over its threshold, but not for long enough, is amber and says when the alarm comes.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from operations import words
from operations.reading import Reading
from outbox.watching import AMBER, GREEN, GREY, RED, Alarm, Hop, State

__all__ = [
    "GREY_AFTER",
    "RED_AFTER",
    "Alert",
    "Judge",
    "News",
    "Station",
    "by_age",
    "news_of",
    "worst",
]

GREY_AFTER, RED_AFTER = 15.0, 60.0  # seconds without news
RATE_SECONDS = 60.0
GROWING_SECONDS = 600.0
_SPACING = 1.5  # seconds between two remembered values of one series
_ORDER: Mapping[State, int] = {GREEN: 0, GREY: 1, AMBER: 2, RED: 3}


def worst(states: Iterable[State]) -> State:
    """The worst of the states; green if there are none."""
    return max(states, key=_ORDER.__getitem__, default=GREEN)


def by_age(reading: Reading[object]) -> tuple[State, str]:
    """The state of a number by the age of its reading, and the reason why there is no newer one."""
    why = reading.error or "no answer yet"
    if min(reading.age, reading.silent) > RED_AFTER:
        return RED, f"no data for {words.span(reading.silent)}: {why}"
    if reading.age > GREY_AFTER:
        return GREY, f"no data for {words.span(reading.silent)}: {why}"
    return GREEN, ""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """How old a part of the page is. `age`: seconds since it was read; `reason`: why there is nothing newer."""

    state: State
    age: float
    reason: str

    @property
    def text(self) -> str:
        """The age and the reason in words."""
        read = f"read {words.ago(self.age)}"
        return f"{read}; {self.reason}" if self.reason else read


def news_of(reading: Reading[object]) -> News:
    """The age of what was read together."""
    state, reason = by_age(reading)
    return News(state=state, age=reading.age, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alarm whose condition is met at a station.

    held   seconds for which the condition has been met
    is_on  it has been met for as long as the alarm asks; otherwise it will be in `left` seconds
    """

    name: str
    station: str
    state: State
    is_on: bool
    sentence: str
    held: float
    left: float
    page: str = ""

    @property
    def key(self) -> str:
        """The name of this alarm at this station; no other alert has it."""
        return f"{self.station}/{self.name}"

    @property
    def when(self) -> str:
        """Says how long the condition has been met, or when it becomes an alarm."""
        if self.is_on:
            return f"for {words.span(self.held)}" if self.held >= 1 else "now"
        return f"an alarm in {words.span(self.left)}"

    @property
    def runbook(self) -> str:
        """The place in the documents that says what to do."""
        return f"docs/operations.md#{self.name.lower()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A hop with its state. `rate`: things per second; `age`: seconds since the numbers were read; `reason`:
    why there are no newer ones."""

    hop: Hop
    state: State
    age: float
    reason: str
    rate: float | None
    alerts: Sequence[Alert]


class Judge:
    """Remembers how long conditions have been met, and earlier numbers. One thread at a time may use it."""

    def __init__(self, alarms: Sequence[Alarm]) -> None:
        self._alarms: dict[str, list[Alarm]] = {}
        for alarm in alarms:
            self._alarms.setdefault(alarm.figure, []).append(alarm)
        self._met_since: dict[str, float] = {}  # by Alert.key
        self._series: dict[str, deque[tuple[float, float]]] = {}
        self._missing_since: dict[str, float] = {}

    def judge(
        self, hop: Hop, readings: Sequence[Reading[object]], *, least: State = GREEN
    ) -> Station:
        """Judge a hop. `readings`: those that its numbers come from; `least`: the best state that it may get."""
        now = time.monotonic()
        read_at = min(reading.read_at for reading in readings)
        name = f"{hop.group}/{hop.name}"
        alerts = [
            alert
            for figure, value in hop.figures.items()
            for alarm in self._alarms.get(figure, ())
            if (alert := self._alert(alarm, value, hop, now, read_at))
        ]
        rate = None
        if hop.done is not None:
            self.note(f"{name}#done", hop.done, read_at)
            rate = self.slope(f"{name}#done", RATE_SECONDS)
        aged = [by_age(reading) for reading in readings]
        state = worst([least, *(alert.state for alert in alerts), *(state for state, _ in aged)])
        return Station(
            hop=hop,
            state=state,
            age=max(reading.age for reading in readings),
            reason="; ".join(why for _, why in aged if why),
            rate=None if rate is None else max(0.0, rate),
            alerts=alerts,
        )

    def recall(self, held: Mapping[str, float], *, age: float) -> None:
        """Take over what another judge saw `age` seconds ago: Alert.key -> seconds for which it was met."""
        now = time.monotonic()
        for key, seconds in held.items():
            self._met_since.setdefault(key, now - age - seconds)

    def missing_since(self, what: str, *, is_missing: bool) -> float:
        """Since when it has been missing, a moment of time.monotonic(); now while it is there."""
        now = time.monotonic()
        if is_missing:
            return self._missing_since.setdefault(what, now)
        self._missing_since.pop(what, None)
        return now

    def note(self, series: str, value: float, at: float) -> None:
        """Remember a number for ten minutes."""
        seen = self._series.setdefault(series, deque())
        if not seen or at - seen[-1][0] >= _SPACING:
            seen.append((at, value))
        while seen and at - seen[0][0] > GROWING_SECONDS:
            seen.popleft()

    def slope(self, series: str, seconds: float, *, least: float = 0.0) -> float | None:
        """How much the series rises per second, over the last `seconds`; None if it is known for no longer
        than `least` seconds."""
        seen = self._series.get(series)
        if seen is None or len(seen) < 2:
            return None
        last_at, last = seen[-1]
        first_at, first = next(each for each in seen if last_at - each[0] <= seconds)
        lasted = last_at - first_at
        return (last - first) / lasted if lasted > least else None

    def _alert(
        self, alarm: Alarm, value: float, hop: Hop, now: float, read_at: float
    ) -> Alert | None:
        name, station = f"{hop.group}/{hop.name}", f"{hop.group}: {hop.name}"
        series = f"{name}#{alarm.figure}"
        if alarm.growing:
            self.note(series, value, read_at)
            grows = (self.slope(series, GROWING_SECONDS) or 0.0) > 0
        else:
            grows = True
        key = f"{station}/{alarm.name}"  # of the Alert
        if not (alarm.is_met_by(value) and grows):
            self._met_since.pop(key, None)
            return None
        held = max(
            now - self._met_since.setdefault(key, now),
            hop.since.get(alarm.figure, 0.0),
            value - alarm.bound if alarm.is_age and math.isfinite(value) else 0.0,
        )
        is_on = held >= alarm.seconds
        return Alert(
            name=alarm.name,
            station=station,
            state=RED if is_on and alarm.critical else AMBER,
            is_on=is_on,
            sentence=alarm.sentence.format(
                value=words.figure(alarm.figure, value, stopped_at=hop.counted)
            ),
            held=held,
            left=max(0.0, alarm.seconds - held),
            page=hop.page,
        )
