"""Print the journey of one event, of a notification, or of all events of an order or of a post."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from eventsite.reports.journey import Travels, travels_of, travels_of_post
from eventsite.reports.stops import Journey, Stop
from feeds.queries import parse_post_id
from outbox.envelope import parse_id, rfc3339

GREEN = ("committed", "published", "applied", "accepted", "ready", "delivered")
COLOURS = {**dict.fromkeys(GREEN, "green"), "waiting": "yellow", "scheduled": "yellow"}
# Ids and details stay on one line when nobody's terminal is asked.
PIPE_WIDTH = 190


class Command(BaseCommand):
    """Reads the database alone: it answers while Kafka and Redis are unavailable."""

    help = "Shows where an event is. Takes the id of an event, a notification, an order or a post."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", help="id of an event, a notification, an order or a post")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = options["id"]
        if post_id := parse_post_id(wanted):
            travels = travels_of_post(post_id)
        elif id_ := parse_id(wanted):
            travels = travels_of(id_)
        else:
            raise CommandError(
                f"{wanted!r} is not an id: give the UUID of an event, a notification or an order, or the number of a post."
            )
        if travels is None:
            raise CommandError(
                f"Nothing has the id {wanted}: no post, order or notification, and no event in the outbox (an event is deleted when every handler is done with it and its retention is over)."
            )
        if options["json"]:
            self.stdout.write(json.dumps(asdict(travels), default=_plain, indent=2))
        else:
            width = None if self.stdout.isatty() else PIPE_WIDTH
            _print(travels, Console(file=cast(IO[str], self.stdout), width=width, highlight=False))


def _plain(value: object) -> str:
    return rfc3339(value) if isinstance(value, datetime) else str(value)


def _print(travels: Travels, console: Console) -> None:
    if travels.order_id:
        count = len(travels.journeys) + len(travels.let_go)
        console.print(f"Order {travels.order_id}: {count} events")
    if travels.post_id:
        console.print(f"Post {travels.post_id}")
    for journey in travels.journeys:
        console.print(_heading(journey), _table(journey.stops), sep="\n")
    if travels.post_id:
        console.print(_slices(travels.slices))
    for event_id in travels.let_go:
        console.print(f"\nEvent {event_id} is done and has left the outbox.")


def _heading(journey: Journey) -> Text:
    lines = [f"\n{journey.type} {journey.event_id}", f"topic {journey.topic}, key {journey.key}"]
    if journey.correlation_id or journey.traceparent:
        lines.append(
            f"correlation id {journey.correlation_id or '-'}, trace {journey.traceparent or '-'}"
        )
    return Text("\n".join(lines))


def _table(stops: Sequence[Stop]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("time (UTC)", "+ ms", "total ms", "where", "what", "process", ""):
        justify: JustifyMethod = "right" if "ms" in title else "left"
        table.add_column(title, justify=justify, no_wrap=bool(title))
    for stop in stops:
        table.add_row(
            rfc3339(stop.at) if stop.at else "",
            _number(stop.step_ms),
            _number(stop.total_ms),
            stop.name,
            Text(stop.state, style=COLOURS.get(stop.state, "red")),
            stop.process,
            Text(stop.detail),
        )
    return table


def _slices(slices: Sequence[Stop]) -> Table | str:
    """What is still to be written into feeds."""
    if not slices:
        return "\nNo slice of it is waiting: what was cut is in the feeds."
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("cut (UTC)", "slice", "what", ""):
        table.add_column(title, no_wrap=bool(title))
    for stop in slices:
        at = rfc3339(stop.at) if stop.at else ""
        style = COLOURS.get(stop.state, "red" if stop.state == "failed" else "yellow")
        table.add_row(at, stop.name, Text(stop.state, style=style), Text(stop.detail))
    return table


def _number(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:,.1f}"
