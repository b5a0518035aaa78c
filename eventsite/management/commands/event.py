"""Print the journey of one event, or of all events of an order."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from io import StringIO
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eventsite.journey import Journey, Stop, Travels, travels_of
from outbox.envelope import rfc3339

COLOURS = {"committed": "green", "published": "green", "applied": "green", "waiting": "yellow"}
# Ids and details stay on one line when nobody's terminal is asked.
PIPE_WIDTH = 160


class Command(BaseCommand):
    """Reads the database alone: it answers with Kafka and Redis away."""

    help = "Tells where an event is and when it got there; takes an event id or an order id."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", help="id of an event or of an order")
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = _parse(options["id"])
        travels = travels_of(wanted)
        if travels is None:
            raise CommandError(
                f"Nothing is known of {wanted}: it is no order, and no event that the outbox holds "
                "(events go when every handler is done and their retention is over)."
            )
        if options["json"]:
            self.stdout.write(json.dumps(asdict(travels), default=_plain, indent=2))
        else:
            self.stdout.write(_rendered(travels, colour=self.stdout.isatty()), ending="")


def _parse(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise CommandError(
            f"{text!r} is no id: give the UUID of an event or of an order."
        ) from None


def _plain(value: object) -> str:
    return rfc3339(value) if isinstance(value, datetime) else str(value)


def _rendered(travels: Travels, *, colour: bool) -> str:
    console = Console(
        file=StringIO(),
        force_terminal=colour,
        width=None if colour else PIPE_WIDTH,
        highlight=False,
    )
    with console.capture() as captured:
        if travels.order_id:
            count = len(travels.journeys) + len(travels.let_go)
            console.print(f"Order {travels.order_id}: {count} events")
        for journey in travels.journeys:
            console.print(_heading(journey), _table(journey.stops), sep="\n")
        for event_id in travels.let_go:
            console.print(f"\nEvent {event_id} is done and has left the outbox.")
    return captured.get()


def _heading(journey: Journey) -> Text:
    lines = [f"\n{journey.type} {journey.event_id}", f"topic {journey.topic}, key {journey.key}"]
    if journey.correlation_id or journey.traceparent:
        lines.append(
            f"correlation id {journey.correlation_id or '-'}, trace {journey.traceparent or '-'}"
        )
    return Text("\n".join(lines))


def _table(stops: Sequence[Stop]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("+ ms", justify="right", no_wrap=True)
    table.add_column("total ms", justify="right", no_wrap=True)
    table.add_column("where", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("")
    for stop in stops:
        table.add_row(
            rfc3339(stop.at) if stop.at else "",
            _number(stop.step_ms),
            _number(stop.total_ms),
            stop.name,
            Text(stop.state, style=COLOURS.get(stop.state, "red")),
            Text(stop.detail),
        )
    return table


def _number(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:,.1f}"
