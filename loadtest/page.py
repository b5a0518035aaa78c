"""A run as one HTML file that needs nothing else: charts, tables, configuration, machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from loadtest.charts import Axis, ChartLine, chart, exactly, linear, logarithmic
from loadtest.histogram import PERCENTILES, Histogram
from loadtest.summary import LoadSummary
from loadtest.tally import Slot

__all__ = ["render"]

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b1f24; --soft: #5f6873;
  --line: #e3e6ea; --blue: #2a78d6; --orange: #d9730d; --grey: #8b95a1; --red: #c93b3b;
  --violet: #7a5cc9; --good: #1a7f4b; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1d2125; --ink: #e8eaed;
  --soft: #9aa4af; --line: #31373d; --blue: #5c9ff0; --orange: #f0964a; --grey: #7d8894;
  --red: #ef6a6a; --violet: #a78bf0; --good: #4cc38a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 20px 48px; max-width: 1000px; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 23px; margin: 0 0 2px; } h2 { font-size: 16px; margin: 0 0 8px; }
.sub { color: var(--soft); margin: 0 0 18px; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(120px, 1fr)); gap: 10px; }
.tile, figure, section { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 13px 14px; }
.tile b { display: block; font-size: 21px; white-space: nowrap; font-weight: 600; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.bad b { color: var(--red); } .good b { color: var(--good); }
figure, section { margin: 12px 0 0; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 4px 18px; }
.legend { color: var(--soft); font-size: 13px; } .key { margin-left: 14px; white-space: nowrap; }
.key i { display: inline-block; width: 14px; height: 3px; margin-right: 6px;
  vertical-align: middle; background: currentColor; }
.plot { margin-top: 6px; padding: 0 8px 0 58px; }
.plot svg { display: block; overflow: visible; }
svg .grid { stroke: var(--line); } svg .notch { stroke: var(--grey); }
svg .tick { fill: var(--soft); font: 12px system-ui, sans-serif; }
polyline { fill: none; vector-effect: non-scaling-stroke; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
polyline.blue { stroke: var(--blue); } polyline.orange { stroke: var(--orange); }
polyline.grey { stroke: var(--grey); stroke-width: 1.3; }
polyline.dashed { stroke: var(--grey); stroke-width: 1.5; stroke-dasharray: 5 4; }
polyline.red { stroke: var(--red); } polyline.violet { stroke: var(--violet); }
i.blue { color: var(--blue); } i.orange { color: var(--orange); }
i.grey, i.dashed { color: var(--grey); } i.red { color: var(--red); } i.violet { color: var(--violet); }
.hover { fill: transparent; } .hover:hover { fill: var(--ink); fill-opacity: .07; }
.percentiles td { white-space: nowrap; } .percentiles th { vertical-align: bottom; }
.percentiles td, .percentiles th { padding-right: 0; padding-left: 10px; }
.percentiles th:first-child { padding-left: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px 5px 0; text-align: right; border-top: 1px solid var(--line); }
tr:first-child > * { border-top: 0; }
th { color: var(--soft); font-weight: 500; } td:first-child, th:first-child { text-align: left; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(370px, 100%), 1fr)); gap: 0 12px; }
.two td { overflow-wrap: anywhere; }
.note { border-left: 4px solid var(--orange); } .note p { margin: 3px 0; }
.crossed { color: var(--red); font-weight: 600; } .kept { color: var(--good); }
"""


def render(summary: LoadSummary) -> str:
    found = summary.as_dict()
    plan = summary.plan
    model = (
        f"closed loop, {plan.closed} connections"
        if plan.closed
        else f"open model, {plan.rate:,g} orders/s wanted, {plan.arrivals} arrivals"
    )
    heading = (
        f"<h1>Load on {escape(plan.url)}</h1>"
        f'<p class="sub">{model}, {summary.tally.seconds:,.0f} s from {found["begin"]}</p>'
    )
    notes = "".join(f"<p>{escape(each)}</p>" for each in summary.warnings())
    parts = [
        heading,
        _tiles(summary),
        f'<section class="note">{notes}</section>' if notes else "",
        _thresholds(summary),
        *_over_time(summary),
        _distribution(summary),
        _times(summary),
        '<div class="two">',
        _facts("Requests", _requests(summary)),
        _facts("Accepted orders", _orders(found["verdict"])),
        _facts("Configuration", found["configuration"]),
        _facts("Machine of the generator", found["machine"]),
        "</div>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Load on {escape(plan.url)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


COUNTS = {"lost": "orders lost", "duplicates": "duplicates"}
# HTTP does not show whether an order took effect, nor what else is stored.
HTTP_COUNTS = {"missing": "orders not stored", "answered_twice": "order ids answered twice"}


def _tiles(summary: LoadSummary) -> str:
    values, tally = summary.values(), summary.tally
    failures = tally.errors.total() + tally.not_sent
    tiles = [
        ("accepted a second", f"{tally.rate:,.1f}", ""),
        ("latency p50", _ms(values["p50"]), ""),
        ("latency p99", _ms(values["p99"]), ""),
        ("end to end p99", _ms(values["e2e_p99"]), ""),
        ("errors and not sent", f"{failures:,}", "bad" if failures else "good"),
        *(
            (name, _count(values[metric]), _mood(values[metric]))
            for metric, name in (HTTP_COUNTS if _by_http(summary) else COUNTS).items()
        ),
    ]
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile {mood}"><b>{value}</b><span>{name}</span></div>'
            for name, value, mood in tiles
        )
        + "</div>"
    )


def _by_http(summary: LoadSummary) -> bool:
    return summary.verdict is not None and summary.verdict.how == "http"


def _thresholds(summary: LoadSummary) -> str:
    if not summary.thresholds:
        return ""
    values, crossed = summary.values(), summary.crossed()
    rows = "".join(
        f"<tr><td>{escape(each.text)}</td><td>{_number(values[each.key])}</td>"
        + ('<td class="crossed">crossed</td>' if each in crossed else '<td class="kept">kept</td>')
        + "</tr>"
        for each in summary.thresholds
    )
    return f"<section><h2>Thresholds</h2><table>{rows}</table></section>"


def _over_time(summary: LoadSummary) -> Iterable[str]:
    timeline = summary.tally.timeline
    slots, width = timeline.slots, timeline.width
    x = exactly(max(len(slots) * width, 1.0), " s")
    middles = [(number + 0.5) * width for number in range(len(slots))]
    hover = [
        (number * width, (number + 1) * width, _label(number * width, width, slot))
        for number, slot in enumerate(slots)
    ]

    def line(name: str, style: str, percent: float) -> ChartLine:
        values = (slot.latency.percentile(percent) / 1000 for slot in slots)
        return ChartLine(name, style, list(zip(middles, values, strict=True)))

    lines = [line("max", "grey", 100), line("p99", "orange", 99), line("p50", "blue", 50)]
    y = _latency_axis(value for each in lines for _, value in each.points)
    origin = "the last answer" if summary.plan.closed else "the intended start"
    yield chart(f"Latency from {origin}, by when it was due", x, y, lines, hover=hover)

    def rate(name: str, style: str, field: str, some: Sequence[Slot]) -> ChartLine:
        values = (getattr(slot, field) / width for slot in some)
        return ChartLine(name, style, list(zip(middles, values, strict=False)))

    # The last slots are begun only, or hold nothing but late answers: a rate would mislead.
    whole = slots[: int((summary.tally.seconds + 0.01) / width)]
    answers = [rate("due", "dashed", "due", whole), rate("accepted", "blue", "answered", whole)]
    failures = [
        rate("errors", "red", "errors", slots),
        rate("not sent", "violet", "not_sent", slots),
    ]
    for title, lines, least in (
        ("Orders a second", answers, 1.0),
        ("Errors and requests not sent, a second, by when they were due", failures, 4.0),
    ):
        highest = max((value for each in lines for _, value in each.points), default=0.0)
        yield chart(title, x, linear(max(highest, least), " /s"), lines, hover=hover)


def _label(at: float, width: float, slot: Slot) -> str:
    span = f"{at:.0f} s" if width == 1 else f"{at:.0f} to {at + width:.0f} s"
    return (
        f"{span}: due {slot.due}, accepted {slot.answered}, errors {slot.errors}, "
        f"not sent {slot.not_sent}; p50 {_ms(slot.latency.percentile(50) / 1000)}, "
        f"p99 {_ms(slot.latency.percentile(99) / 1000)}, "
        f"max {_ms(slot.latency.percentile(100) / 1000)}"
    )


def _distribution(summary: LoadSummary) -> str:
    """Latency against percentile, each nine as wide as the one before."""
    tally = summary.tally
    nines = max(2, math.ceil(math.log10(max(tally.latency.count, 100))))
    shares = [n / 40 for n in range(40 * nines + 1)]
    named = {1.0: "90 %", 2.0: "99 %", 3.0: "99.9 %", 4.0: "99.99 %", 5.0: "99.999 %"}
    ticks = [
        (0.0, "0"),
        (math.log10(2), "50 %"),
        *((at, text) for at, text in named.items() if at <= nines),
    ]
    x = Axis(lambda value: value / nines, ticks)

    def curve(name: str, style: str, histogram: Histogram) -> ChartLine:
        points = [(at, histogram.percentile(100 * (1 - 10**-at)) / 1000) for at in shares]
        return ChartLine(name, style, points)

    curves = [
        curve("service time, from the actual start", "dashed", tally.service),
        curve("latency, from the intended start", "blue", tally.latency),
    ]
    y = _latency_axis(value for each in curves for _, value in each.points)
    return chart("Latency by percentile", x, y, curves[summary.plan.closed > 0 :])


def _latency_axis(values: Iterable[float]) -> Axis:
    found = [value for value in values if not math.isnan(value)] or [1.0]
    return logarithmic(min(found), max(found), _ms)


def _times(summary: LoadSummary) -> str:
    values = summary.values()
    columns = {
        "latency": "",
        "service time": "service_",
        "lag of the generator": "lag_",
        "end to end": "e2e_",
    }
    head = "".join(f"<th>{title}</th>" for title in ("", *columns))
    body = "".join(
        f"<tr><th>{name}</th>"
        + "".join(f"<td>{_ms(values[prefix + name])}</td>" for prefix in columns.values())
        + "</tr>"
        for name in (*PERCENTILES, "max")
    )
    return (
        f'<section><h2>Percentiles</h2><table class="percentiles"><tr>{head}</tr>{body}</table>'
        '<p class="sub" style="margin:8px 0 0">Latency counts from the moment a request was due, '
        "service time from its sending; lag is what lies between. End to end: from the answer to "
        "the sales figures that hold the order.</p></section>"
    )


def _requests(summary: LoadSummary) -> dict[str, Any]:
    tally = summary.tally
    return {
        "due": tally.due,
        "sent": tally.sent,
        "not sent": tally.not_sent,
        "accepted": tally.accepted,
        "errors": tally.errors.total(),
    } | {f"error: {kind}": count for kind, count in tally.errors.most_common()}


def _orders(verdict: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if verdict is None:
        return {"looked for": "no"}
    return {
        name: value
        for name, value in verdict.items()
        if value is not None and (name != "examples_of_lost" or value)
    }


def _facts(title: str, facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{escape(_said(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<section><h2>{title}</h2><table>{rows}</table></section>"


def _said(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {each}" for key, each in value.items()) or "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _ms(value: float) -> str:
    if math.isnan(value):
        return "-"
    if value >= 10_000:
        return f"{value / 1000:,.3g} s"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.6g}"


def _count(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value:,.0f}"


def _mood(value: float) -> str:
    return "" if math.isnan(value) else "bad" if value else "good"
