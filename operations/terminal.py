"""The snapshot for a terminal, in the same words as the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from operations import words
from operations.charts import Picture
from operations.pages import cards, picture_of, progress, what_it_is
from operations.snapshot import Snapshot
from outbox.envelope import rfc3339
from outbox.watching import AMBER, GREEN, GREY, RED, State

__all__ = ["COLOURS", "rendered", "view"]

COLOURS: dict[State, str] = {GREEN: "green", GREY: "bright_black", AMBER: "yellow", RED: "red"}
# The width of a text that is not written to a terminal.
PIPE_WIDTH = 160
NUMBERS = ("waits", "oldest", "rate", "age")


def rendered(
    snapshot: Snapshot, *, colour: bool, span: str = "hour", width: int = PIPE_WIDTH
) -> str:
    """The snapshot as text; `colour`: as wide as the terminal and with its colours; `span`: of the charts."""
    console = Console(
        file=StringIO(),
        force_terminal=colour,
        width=None if colour else width,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(view(snapshot, span))
    return captured.get()


def view(snapshot: Snapshot, span: str = "hour") -> RenderableType:
    """The snapshot as rich draws it."""
    as_of = f"as of {rfc3339(snapshot.as_of)}" if snapshot.as_of else "no server has answered yet"
    stored, picture = snapshot.stored.text, picture_of(snapshot, span)
    head = Text.assemble(
        (snapshot.state.upper(), f"bold {COLOURS[snapshot.state]}"),
        f"  {snapshot.sentence}  {as_of}",
    )
    stations: list[RenderableType] = ["", _stations(snapshot)] if snapshot.stations else []
    return Group(
        head,
        *_reasons(snapshot),
        *stations,
        *_headed(f"Business and pipeline, {picture.words}", _past(picture), snapshot.charted.text),
        *_headed("Under way", _under_way(snapshot), stored),
        *_headed("Dead letters, by handler and error", _letters(snapshot), stored),
        *_headed("Time left", _deadlines(snapshot)),
        *_headed("Servers and processes", _running(snapshot), snapshot.several),
        *_headed("Who did what", _actions(snapshot), stored),
    )


def _headed(
    title: str, rows: Iterable[Sequence[RenderableType]], more: str = ""
) -> list[RenderableType]:
    """Nothing without rows. `more`: what is said of all of them."""
    table = _table(rows)
    head = Text.assemble((title, "bold"), f"  {more}")
    return ["", head, table] if table.row_count else []


def _table(rows: Iterable[Sequence[RenderableType]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    return table


def _under_way(snapshot: Snapshot) -> Iterator[Sequence[str]]:
    for entry in snapshot.actions:
        if entry.ended_at is None:
            yield f"{entry.what} of {entry.subject}", progress(entry), f"{entry.by}: {entry.why}"


def _letters(snapshot: Snapshot) -> Iterator[Sequence[str]]:
    for group in snapshot.letters:
        count, error = words.count(group.letters), group.shown or "no error text"
        yield group.handler, f"{count} letters", f"oldest {words.span(group.oldest)}", error


def _actions(snapshot: Snapshot) -> Iterator[Sequence[str]]:
    for entry in snapshot.actions:
        at, what = f"{entry.at:%Y-%m-%d %H:%M:%S}", f"{entry.what} of {entry.subject}"
        yield at, entry.by, what, progress(entry), entry.why


def _past(picture: Picture) -> Iterator[Sequence[str]]:
    for _, charts in picture.groups:
        for drawn in charts:
            title, _, values = drawn.label.partition(": ")
            yield title, values
    if picture.left_out:
        yield "", picture.left_out
    for mark in picture.marks:
        yield f"{mark.when:%H:%M}", mark.words


def _reasons(snapshot: Snapshot) -> Iterator[Text]:
    """Why the state is what it is, a line each."""
    reasons: list[tuple[State, str]] = [
        *((each.state, f"{each.name}: {each.reason}") for each in snapshot.servers if each.reason),
        *((each.state, f"{each.app}: {each.reason}") for each in snapshot.unread),
    ]
    for alert in snapshot.alerts:
        when = f"({alert.when}; {alert.runbook})"
        reasons.append((alert.state, f"{alert.name}, {alert.station}: {alert.sentence} {when}"))
    for state, line in reasons:
        yield Text.assemble((f"{state:<6}", COLOURS[state]), line)


def _stations(snapshot: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("", "where", "waits", "oldest", "rate", "age", ""):
        table.add_column(
            title, no_wrap=bool(title), justify="right" if title in NUMBERS else "left"
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
                Text("; ".join([card.station.reason, *card.station.hop.notes]).strip("; ")),
            )
    return table


def _running(snapshot: Snapshot) -> Iterator[Sequence[RenderableType]]:
    for server in snapshot.servers:
        says = "; ".join([*server.facts, *filter(None, [server.reason])])
        yield _dot(server.state), server.name, "", f"heard {words.ago(server.age)}", "", says
    for row in snapshot.processes:
        said = row.seen.said
        yield (
            Text("replaced" if row.replaced else row.state, style=COLOURS[row.state]),
            said.name,
            f"up {words.span(said.up)}",
            f"heard {words.ago(row.age)}",
            words.bytes_of(said.memory),
            what_it_is(row),
        )


def _deadlines(snapshot: Snapshot) -> Iterator[Sequence[RenderableType]]:
    for each in snapshot.deadlines:
        left = "" if each.left is None else f"{words.span(each.left)} left"
        standing = f"{each.standing}; {each.reason}" if each.reason else each.standing
        read = f"read {words.ago(each.age)}"
        yield _dot(each.state), each.name, left, read, standing, each.ends


def _plain(cell: RenderableType) -> RenderableType:
    """Without a meaning for what stands in brackets, as in the text of an error."""
    return Text(cell) if isinstance(cell, str) else cell


def _dot(state: State) -> Text:
    return Text(state, style=COLOURS[state])
