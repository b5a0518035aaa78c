"""The snapshot in a terminal, in the words of the page."""

from __future__ import annotations

from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from operations import words
from operations.pages import cards
from operations.snapshot import Snapshot
from outbox.envelope import rfc3339
from outbox.watching import AMBER, GREEN, GREY, RED, State

__all__ = ["COLOURS", "rendered", "view"]

COLOURS: dict[State, str] = {GREEN: "green", GREY: "bright_black", AMBER: "yellow", RED: "red"}
# Where nobody's terminal is asked.
PIPE_WIDTH = 160


def rendered(snapshot: Snapshot, *, colour: bool) -> str:
    """As text."""
    console = Console(
        file=StringIO(),
        force_terminal=colour,
        width=None if colour else PIPE_WIDTH,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(view(snapshot))
    return captured.get()


def view(snapshot: Snapshot) -> RenderableType:
    """What rich draws."""
    head = Text.assemble(
        (snapshot.state.upper(), f"bold {COLOURS[snapshot.state]}"),
        f"  {snapshot.sentence}  as of {rfc3339(snapshot.at)}",
    )
    stations: list[RenderableType] = ["", _stations(snapshot)] if snapshot.stations else []
    return Group(head, *_alerts(snapshot), *stations, "", _rest(snapshot))


def _alerts(snapshot: Snapshot) -> list[Text]:
    lines = [
        Text.assemble(
            (f"{alert.state:<6}", COLOURS[alert.state]),
            f"{alert.name}, {alert.station}: {alert.sentence} ({alert.when}; {alert.runbook})",
        )
        for alert in snapshot.alerts
    ]
    unheard = [
        Text.assemble((f"{each.state:<6}", COLOURS[each.state]), f"{each.name}: {each.reason}")
        for each in snapshot.servers
        if each.reason
    ]
    unread = [
        Text.assemble((f"{each.state:<6}", COLOURS[each.state]), f"{each.app}: {each.reason}")
        for each in snapshot.unread
    ]
    return [*unheard, *unread, *lines]


def _stations(snapshot: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("", "where", "waits", "oldest", "rate", "age", ""):
        table.add_column(
            title, no_wrap=bool(title), justify="right" if title in _NUMBERS else "left"
        )
    for name, stations in snapshot.groups.items():
        for card in cards(stations):
            state = card.station.state
            table.add_row(
                Text(state, style=COLOURS[state]),
                f"{name}: {card.station.hop.name}",
                card.waits if card.station.hop.waits is not None else "",
                card.oldest,
                card.rate,
                card.age,
                "; ".join([card.station.reason, *card.station.hop.notes]).strip("; "),
            )
    return table


_NUMBERS = ("waits", "oldest", "rate", "age")


def _rest(snapshot: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(4):
        table.add_column()
    for server in snapshot.servers:
        table.add_row(_dot(server.state), server.name, "", "; ".join(server.facts))
    for row in snapshot.processes:
        said = row.seen.said
        told = [
            f"{said.kind} {said.release}, up {words.span(said.up)}",
            f"heartbeat {words.span(row.seen.age)} ago",
            words.bytes_of(said.memory),
        ]
        table.add_row(_dot(row.state), said.name, f"{said.host} {said.pid}", ", ".join(told))
    for each in snapshot.deadlines:
        left = "" if each.left is None else f"{words.span(each.left)} left"
        table.add_row(_dot(each.state), each.name, left, each.standing)
    return table


def _dot(state: State) -> Text:
    return Text(state, style=COLOURS[state])
