"""The snapshot for a terminal, in the same words as the page."""

from __future__ import annotations

from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from operations import words
from operations.pages import cards, picture_of, progress, spans_of
from operations.snapshot import Snapshot
from outbox.envelope import rfc3339
from outbox.watching import AMBER, GREEN, GREY, RED, State

__all__ = ["COLOURS", "rendered", "view"]

COLOURS: dict[State, str] = {GREEN: "green", GREY: "bright_black", AMBER: "yellow", RED: "red"}
# The width of a text that is not written to a terminal.
PIPE_WIDTH = 160


def rendered(snapshot: Snapshot, *, colour: bool) -> str:
    """The snapshot as text; `colour`: with the colours of a terminal."""
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
    """The snapshot as rich draws it."""
    head = Text.assemble(
        (snapshot.state.upper(), f"bold {COLOURS[snapshot.state]}"),
        f"  {snapshot.sentence}  as of {rfc3339(snapshot.at)}",
    )
    stations: list[RenderableType] = ["", _stations(snapshot)] if snapshot.stations else []
    return Group(
        head,
        *_alerts(snapshot),
        *stations,
        *_headed("Under way", _under_way(snapshot)),
        *_headed("Dead letters, by handler and error", _letters(snapshot)),
        "",
        *_releases(snapshot),
        _rest(snapshot),
        *_headed("Who did what", _actions(snapshot)),
        *_headed("The last hour", _past(snapshot)),
    )


def _headed(title: str, table: Table) -> list[RenderableType]:
    """Nothing for an empty table."""
    return ["", Text(title, style="bold"), table] if table.row_count else []


def _releases(snapshot: Snapshot) -> list[RenderableType]:
    if len(snapshot.releases) < 2:
        return []
    return [f"Two releases run at once: {', '.join(snapshot.releases)}."]


def _under_way(snapshot: Snapshot) -> Table:
    table = _plain(3)
    for entry in snapshot.actions:
        if entry.ended_at is None:
            table.add_row(
                f"{entry.what} of {entry.subject}", progress(entry), f"{entry.by}: {entry.why}"
            )
    return table


def _letters(snapshot: Snapshot) -> Table:
    table = _plain(4)
    for group, oldest in spans_of(snapshot.letters):
        table.add_row(
            group.handler,
            f"{words.count(group.letters)} letters",
            f"oldest {oldest}",
            group.shown or "no error told",
        )
    return table


def _actions(snapshot: Snapshot) -> Table:
    table = _plain(5)
    for entry in snapshot.actions:
        table.add_row(
            f"{entry.at:%Y-%m-%d %H:%M:%S}",
            entry.by,
            f"{entry.what} of {entry.subject}",
            progress(entry),
            entry.why,
        )
    return table


def _past(snapshot: Snapshot) -> Table:
    """Each chart in one line, and the marks."""
    picture = picture_of(snapshot, "hour")
    table = _plain(2)
    for _, charts in picture.groups:
        for drawn in charts:
            title, _, told = drawn.label.partition(": ")
            table.add_row(title, told)
    for mark in picture.marks:
        table.add_row(f"{mark.when:%H:%M}", mark.words)
    return table


def _plain(columns: int) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(columns):
        table.add_column()
    return table


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
    table = _plain(4)
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
