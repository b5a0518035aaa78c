"""A run on the terminal: a line a second, and the table at the end."""

from __future__ import annotations

import math
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from loadtest.histogram import PERCENTILES
from loadtest.summary import LoadSummary
from loadtest.tally import LoadTally

__all__ = ["LoadProgress", "print_summary"]

SPARSE_SECONDS = 10


class LoadProgress:
    """A line each second on a terminal, each tenth elsewhere: a log is read later."""

    def __init__(self, say: Callable[[str], None], *, terminal: bool, wanted: float) -> None:
        self._say = say
        self._every = 1 if terminal else SPARSE_SECONDS
        self._wanted = wanted  # orders a second; 0: as many as can be
        self._calls = 0
        self._before = (0, 0.0)

    def show(self, tally: LoadTally) -> None:
        """Called about once a second."""
        self._calls += 1
        if self._calls % self._every:
            return
        slots = tally.timeline.slots
        seconds = self._calls
        answered = tally.answered
        rate = (answered - self._before[0]) / (seconds - self._before[1])
        self._before = (answered, float(seconds))
        recent = slots[-2] if len(slots) > 1 else slots[-1] if slots else None
        p50, p99 = (
            (recent.latency.percentile(50) / 1000, recent.latency.percentile(99) / 1000)
            if recent
            else (math.nan, math.nan)
        )
        wanted = f" of {self._wanted:,.0f}" if self._wanted else ""
        self._say(
            f"{seconds:>5} s  {rate:>7,.0f}{wanted}/s  p50 {_ms(p50)}  p99 {_ms(p99)}  "
            f"under way {tally.under_way}  errors {tally.errors.total()}  "
            f"not sent {tally.not_sent}"
        )


def print_summary(console: Console, summary: LoadSummary) -> None:
    """The tables, the warnings and the thresholds."""
    values, tally = summary.values(), summary.tally
    console.print(_times(summary, values))
    counts = [
        f"{tally.accepted:,} of {tally.due:,} orders accepted, {tally.rate:,.1f}/s over "
        f"{tally.seconds:.1f} s (kind {summary.plan.kind}, seed {summary.plan.seed})",
        f"not sent {tally.not_sent:,}; errors {tally.errors.total():,}"
        + "".join(f"; {kind} {count:,}" for kind, count in tally.errors.most_common()),
        _verdict(summary),
    ]
    for line in counts:
        console.print(line, highlight=False)
    for warning in summary.warnings():
        console.print(f"[yellow]Note:[/] {warning}", highlight=False)
    crossed = summary.crossed()
    for threshold in summary.thresholds:
        mark = "[bold red]crossed[/]" if threshold in crossed else "[green]kept[/]"
        value = values[threshold.key]
        console.print(f"{mark} {threshold.text} (it was {value:,.4g})", highlight=False)


def _times(summary: LoadSummary, values: dict[str, float]) -> Table:
    table = Table(title=f"POST {summary.plan.url}/orders", title_justify="left")
    table.add_column("milliseconds")
    for name in (*PERCENTILES, "max"):
        table.add_column(name, justify="right")
    origin = "the last answer" if summary.plan.closed else "the intended start"
    rows = {
        f"latency, from {origin}": "",
        "service time, from the actual start": "service_",
        "lag of the generator itself": "lag_",
        "end to end, from the answer to the figures": "e2e_",
    }
    for title, prefix in rows.items():
        table.add_row(title, *(_ms(values[f"{prefix}{name}"]) for name in (*PERCENTILES, "max")))
    return table


def _verdict(summary: LoadSummary) -> str:
    found = summary.verdict
    if found is None:
        return "loss: not looked for"
    if found.how == "http":
        asked = summary.tally.accepted - found.unchecked
        return (
            f"not stored {found.missing} of {asked:,} orders asked for over HTTP; order ids answered "
            f"twice {found.answered_twice}; effects and orders stored twice: not checked"
        )
    return (
        f"lost {found.lost} ({found.missing} not stored, {found.without_effect} without effect); "
        f"duplicates {found.duplicates}; figures that differ from the recount "
        f"{found.figures}; stored without an answer {found.unanswered}; "
        f"every effect looked for during {found.waited:.1f} s"
    )


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.1f}"
