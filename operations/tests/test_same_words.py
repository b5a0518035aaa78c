"""The page and the terminal say the same, in every section."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import unescape

import pytest
from django.template.loader import render_to_string

from eventsite.rollout import Version
from operations import words
from operations.judge import Station
from operations.pages import LETTERS, charts_part, live_parts, picture_of, progress
from operations.snapshot import Snapshot
from operations.terminal import rendered
from operations.tests.everything import everything
from operations.viewers import Viewer

Said = Iterator[tuple[str, Sequence[str]]]
"""Heading of a section, and words in it."""


def of_the_top(shown: Snapshot) -> Said:
    assert shown.as_of is not None
    yield "", (shown.sentence, f"{shown.as_of:%H:%M:%S}")
    [alert] = shown.alerts
    yield "", (alert.station, alert.sentence, alert.when, alert.runbook)
    [unread] = shown.unread
    yield "", (unread.app, unread.reason)
    for station in shown.stations:
        yield "", list(of_a_card(station))


def of_a_card(station: Station) -> Iterator[str]:
    hop = station.hop
    yield from (hop.group, hop.name, station.state, words.span(station.age), *hop.notes)
    if hop.waits is not None:
        yield words.count(hop.waits)
    if hop.oldest is not None:
        yield words.span(hop.oldest)
    if hop.done is not None:
        yield words.rate(station.rate)


def of_the_past(shown: Snapshot, span: str) -> Said:
    heading, picture = "Business and pipeline", picture_of(shown, span)
    assert picture.marks
    yield heading, (shown.charted.text, picture.words.removeprefix("the "))
    for _, group in picture.groups:
        for drawn in group:
            yield heading, (drawn.chart.title, f"{drawn.lines[0].last} now")
    for mark in picture.marks:
        yield heading, (f"{mark.when:%H:%M}", mark.words)


def of_what_was_done(shown: Snapshot) -> Said:
    yield "Under way", ("replay of group 2", "12 of 40 done, 3 skipped", "ada: mended")
    for entry in shown.actions:
        when, what = f"{entry.at:%Y-%m-%d %H:%M:%S}", f"{entry.what} of {entry.subject}"
        known = (when, entry.by, what, progress(entry), entry.why, shown.stored.text)
        yield "Who did what", known


def of_what_waits(shown: Snapshot) -> Said:
    for group in shown.letters:
        oldest = words.span(group.oldest)
        known = (group.handler, group.error, str(group.letters), oldest, shown.stored.text)
        yield "Dead letters, by handler and error", known
    for each in shown.deadlines:
        left = [words.span(each.left)] if each.left is not None else []
        ends = (words.span(each.age), each.standing, each.ends)
        yield "Time left", (each.name, each.state, *left, *ends)


def of_what_runs(shown: Snapshot) -> Said:
    heading = "Servers and processes"
    assert shown.several
    yield heading, (shown.several,)
    for server in shown.servers:
        age = words.span(server.age)
        yield heading, (server.name, server.state, age, *server.facts, server.reason)
    for row in shown.processes:
        said = row.seen.said
        state = "replaced" if row.replaced else row.state
        times = (words.span(said.up), words.span(row.age), words.bytes_of(said.memory))
        version = str(Version(said.release, said.build))
        what = (said.kind, version, f"pid {said.pid} on {said.host}", row.reason)
        yield heading, (said.name, state, *times, *what)


def page_of(shown: Snapshot, span: str) -> str:
    """The whole page without its marks of HTML."""
    viewer = Viewer("ada", frozenset({LETTERS}))
    context = {
        "viewer": viewer,
        **live_parts(shown, viewer.permissions),
        "charts": charts_part(shown, span),
        "span": span,
    }
    page = render_to_string("operations/page.html", context)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.mark.parametrize("span", ["hour", "day"])
def test_page_and_terminal_have_the_same_words(span: str) -> None:
    shown = everything()
    # So wide that it breaks no line.
    page, text = page_of(shown, span), rendered(shown, colour=False, span=span, width=1000)
    lines, text = text.splitlines(), " ".join(text.split())
    sections = [
        *of_the_top(shown),
        *of_the_past(shown, span),
        *of_what_was_done(shown),
        *of_what_waits(shown),
        *of_what_runs(shown),
    ]
    for heading, known in sections:
        for each in (heading, *known):
            assert each in page, (heading, each)
            assert each in text, (heading, each)
    [replaced] = [line.split() for line in lines if line.startswith("replaced")]
    assert replaced[1] == "web"
