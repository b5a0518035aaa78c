"""The last hour or day as lines: the business above the pipeline, on one axis of time, with what happened.

Drawn here, so a browser needs no script for it. A minute of which nothing is known is a gap in the line, also
at its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby, pairwise
from typing import Literal

from operations import words
from operations.judge import Station
from operations.past import ACTIONS, Past, Row
from outbox.models import OperatorAction

__all__ = ["CHARTS", "SPANS", "Chart", "Drawn", "Line", "Mark", "Picture", "draw", "series_of"]

Kind = Literal["count", "seconds", "money"]
HEIGHT = 100  # of a drawing; its width is the number of its points
MARKS = 40  # the newest
LINES = 8  # of one chart; as many colours as there are
POSTS = "posts#made"


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart. `series`: its name, or what stands before and behind * in their names; `rises`: they are
    counters, so the chart shows what is added a minute; `each`: a line for each of them, else their sum."""

    name: str
    title: str
    series: str
    group: Literal["business", "pipeline"] = "pipeline"
    kind: Kind = "count"
    rises: bool = False
    each: bool = False


_BUSINESS = partial(Chart, group="business")
CHARTS = (
    _BUSINESS("orders", "Orders a minute", "business/sales#done", rises=True),
    _BUSINESS(
        "revenue",
        "Revenue a minute",
        "business/sales#sales_revenue_total",
        kind="money",
        rises=True,
    ),
    _BUSINESS("posts", "Posts a minute", POSTS),
    _BUSINESS("feeds", "Feed lag", "feeds/fan-out#oldest", kind="seconds"),
    _BUSINESS("delivered", "Notifications delivered a minute", "notifications/*#done", rises=True),
    _BUSINESS("relayed", "Messages relayed a minute", "relay/*#done", rises=True),
    Chart("accepted", "Events accepted a minute", "pipeline/accepted#done", rises=True),
    Chart("pending", "Events waiting for Kafka", "pipeline/outbox#waits"),
    Chart("oldest", "Oldest of them", "pipeline/outbox#oldest", kind="seconds"),
    Chart("lag", "Lag of each handler", "handlers/*#oldest", kind="seconds", each=True),
    Chart("letters", "Dead letters open", "dead letters/*#waits"),
)


@dataclass(frozen=True, slots=True)
class _Span:
    points: int
    minutes: int  # of each
    words: str


SPANS: Mapping[str, _Span] = {
    "hour": _Span(60, 1, "the last hour"),
    "day": _Span(144, 10, "the last day"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`values`: one for each point, None: not known; `paths`: what a browser draws of them, one for each stretch
    without a gap; `last`, `highest`: in words."""

    name: str
    values: Sequence[float | None]
    paths: Sequence[str]
    last: str
    highest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A chart. `top`: what its upper edge is; `rows`: (time, values in words), for the table; `label`:
    all of it in one sentence."""

    chart: Chart
    points: int
    lines: Sequence[Line]
    top: str
    label: str
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What happened. `at`: how far along the axis, in percent."""

    number: int
    at: float
    when: datetime
    kind: str  # deploy, migration, action, alarm (a critical one), warning
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All charts of one span. `earlier`: marks that are left out before the first; `at_least`: there may be more of
    them; `ticks`: times along the axis, from its begin to its end; `until`: the end of each point."""

    span: str
    words: str
    known: bool = True
    groups: Sequence[tuple[str, Sequence[Drawn]]] = ()
    marks: Sequence[Mark] = ()
    ticks: Sequence[str] = ()
    until: Sequence[datetime] = ()
    earlier: int = 0
    at_least: bool = False

    @property
    def left_out(self) -> str:
        """Says how many marks are left out; empty if all are there."""
        return f"and {'at least ' * self.at_least}{self.earlier} earlier" if self.earlier else ""


def series_of(stations: Sequence[Station]) -> dict[str, float]:
    """The values of now that the charts need, by name."""
    found: dict[str, float] = {}
    for station in stations:
        hop = station.hop
        values = {"waits": hop.waits, "oldest": hop.oldest, "done": hop.done, **hop.figures}
        for field, value in values.items():
            name = f"{hop.group}/{hop.name}#{field}"
            if value is not None and any(_is_of(name, chart) for chart in CHARTS):
                found[name] = round(float(value), 2)
    return found


def _is_of(name: str, chart: Chart) -> bool:
    before, star, behind = chart.series.partition("*")
    return name == chart.series or bool(star and name.startswith(before) and name.endswith(behind))


def draw(past: Past, span: str) -> Picture:
    """The picture of what is known, up to the end of the past."""
    bounds, end = SPANS[span], past.end
    if end is None:
        return Picture(span=span, words=bounds.words, known=False)
    step = timedelta(minutes=bounds.minutes)
    begin = end - step * bounds.points
    slots: list[list[Row]] = [[] for _ in range(bounds.points)]
    before: Row | None = None
    for row in past.rows:
        # A slot has its own end, not its begin: the newest minute is in the last one.
        place = -((begin - row.at) // step) - 1
        if row.at <= begin:
            before = row
        else:
            slots[place].append(row)
    drawn = [_draw(chart, slots, before, begin=begin, step=step) for chart in CHARTS]
    kept = [each for each in drawn if each.lines]
    happened = _happened(past, begin, end)
    return Picture(
        span=span,
        words=bounds.words,
        groups=[
            (group, [each for each in kept if each.chart.group == group])
            for group in ("business", "pipeline")
        ],
        marks=[
            Mark(
                number=number,
                at=round(min(100.0, 100 * (at - begin) / (end - begin)), 2),
                when=at,
                kind=kind,
                words=text,
            )
            for number, (at, kind, text) in enumerate(happened[-MARKS:], start=1)
        ],
        earlier=len(happened[:-MARKS]),
        at_least=len(past.actions) >= ACTIONS,
        ticks=[f"{begin + (end - begin) * part / 4:%H:%M}" for part in range(5)],
        until=[begin + step * (number + 1) for number in range(bounds.points)],
    )


def _draw(
    chart: Chart,
    slots: Sequence[Sequence[Row]],
    before: Row | None,
    *,
    begin: datetime,
    step: timedelta,
) -> Drawn:
    rows = [row for slot in slots for row in slot]
    names = sorted({name for row in rows for name in row.figures.series if _is_of(name, chart)})
    bundles = [(name,) for name in names[:LINES]] if chart.each else [tuple(names)] if names else []
    values = [_values(chart, bundle, slots, before) for bundle in bundles]
    highest = max((value for line in values for value in line if value is not None), default=0.0)
    top = highest or 1.0
    lines = [
        Line(
            name=bundle[0].partition("/")[2].partition("#")[0],
            values=line,
            paths=list(_paths(line, top)),
            last=_in_words(chart, line[-1]),
            highest=_in_words(
                chart, max((each for each in line if each is not None), default=None)
            ),
        )
        for bundle, line in zip(bundles, values, strict=True)
    ]
    sentence = "; ".join(
        f"{line.name + ': ' if chart.each else ''}{line.last} now, {line.highest} at most"
        for line in lines
    )
    return Drawn(
        chart=chart,
        points=len(slots),
        lines=lines,
        top=_in_words(chart, highest),
        label=f"{chart.title}: {sentence}",
        rows=[
            (
                f"{begin + step * (number + 1):%H:%M}",
                [_in_words(chart, line[number]) for line in values],
            )
            for number in reversed(range(len(slots)))
        ],
    )


def _values(
    chart: Chart, names: Sequence[str], slots: Sequence[Sequence[Row]], before: Row | None
) -> list[float | None]:
    """One for each slot: of counters what was added a minute, of others the highest."""
    found: list[float | None] = []
    last = before
    for slot in slots:
        values = []
        for row in slot:
            value = _added(last, row, names) if chart.rises else _sum(row, names)
            if value is not None:
                values.append(value)
            last = row
        mean = sum(values) / len(values) if values else None
        found.append(mean if chart.rises else max(values, default=None))
    return found


def _sum(row: Row, names: Sequence[str]) -> float | None:
    known = [row.figures.series[name] for name in names if name in row.figures.series]
    return sum(known) if known else None


def _added(last: Row | None, row: Row, names: Sequence[str]) -> float | None:
    """A minute, on the average since the last row. A counter that has begun anew counts from nothing."""
    if last is None:
        return None
    added = []
    for name in names:
        now, was = row.figures.series.get(name), last.figures.series.get(name)
        if now is not None and was is not None:
            added.append(now - was if now >= was else now)
    minutes = (row.at - last.at).total_seconds() / 60
    return sum(added) / minutes if added else None


def _paths(values: Sequence[float | None], top: float) -> Iterator[str]:
    stretch: list[str] = []
    for number, value in enumerate([*values, None]):
        if value is None:
            if stretch:
                # One point alone is a line to itself, which a round end makes a dot.
                yield " ".join(stretch if stretch[1:] else stretch * 2)
            stretch = []
        else:
            stretch.append(f"{number + 0.5:g},{HEIGHT - value / top * (HEIGHT - 4) - 2:.1f}")


def _in_words(chart: Chart, value: float | None) -> str:
    if value is None:
        return words.NOT_KNOWN
    if chart.kind == "seconds":
        return words.span(value)
    if chart.kind == "money":
        return f"{value:,.2f}"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _happened(past: Past, begin: datetime, end: datetime) -> list[tuple[datetime, str, str]]:
    """Time, kind and words of all that happened within."""
    last = end + timedelta(minutes=1)  # a minute's row is written at its begin
    found = [
        *_deploys(past.rows),
        *_migrated(past.migrations),
        *((each.at, "action", _of_action(each)) for each in past.actions),
        *_alarms(past.rows),
    ]
    return sorted(each for each in found if begin <= each[0] <= last)


def _of_action(entry: OperatorAction) -> str:
    why = f": {entry.why}" if entry.why else ""
    return f"{entry.what} of {entry.subject} by {entry.by}{why}"


def _migrated(migrations: Sequence[tuple[datetime, str]]) -> Iterator[tuple[datetime, str, str]]:
    """One for each minute: a new database has dozens at once."""
    for _, group in groupby(sorted(migrations), lambda each: f"{each[0]:%d %H:%M}"):
        (at, name), *others = group
        many = f"{len(others) + 1} migrations, the last {others[-1][1]}" if others else ""
        yield at, "migration", many or f"migration {name}"


def _deploys(rows: Sequence[Row]) -> Iterator[tuple[datetime, str, str]]:
    """A release or build that runs and did not run a minute before."""
    known = [row for row in rows if row.figures.releases]
    for before, row in pairwise(known):
        for release in row.figures.releases:
            if release not in before.figures.releases:
                yield row.at, "deploy", f"release {release} runs"


def _alarms(rows: Sequence[Row]) -> Iterator[tuple[datetime, str, str]]:
    """One that is on and was not a minute before."""
    for before, row in pairwise(rows):
        for alarm in _on(row):
            if alarm not in _on(before):
                kind = "alarm" if alarm in row.figures.red else "warning"
                yield row.at, kind, f"alarm {alarm}"


def _on(row: Row) -> Sequence[str]:
    return row.figures.on or row.figures.red
