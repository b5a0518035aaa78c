"""A demo that cannot fail proves nothing: every verdict fails for the damage it is there for."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from devtools.demo.account import FeedsAccount, Half, Observations, account, conclusion
from devtools.demo.report import ReportLine, print_report
from devtools.probe.queries import OrderVerdict
from devtools.testing.measure import Counts, KafkaCount, Latency
from eventsite.reports.recount import FigureComparison

LATENCY = Latency(p50=5.0, p99=50.0)
HALF = Half(
    sent=100,
    accepted=100,
    simple=50,
    changes_attempted=40,
    changes_answered=40,
    operations={"pay": 25, "ship": 5, "cancel": 10},
    stock=120,
    drawn=30,
    post=LATENCY,
    to_kafka=LATENCY,
    to_figures=LATENCY,
)
HEALTHY = Observations(
    calm=HALF,
    rough=HALF,
    # 200 orders, 100 of them simple, 80 changes, 70 numbers (10 of them the warm-up's), 240 lines, and
    # 60 changes of feeds
    counts=Counts(
        orders=200, events=750, published=750, heard=510, applied=510, processed_events=100
    ),
    stock=240,
    missing=0,
    order=OrderVerdict(drawn=70, applied=70, lost=0, duplicates=0, violations=0),
    kafka=KafkaCount(messages=753, distinct=750),
    calm_duplicates=0,
    figures=FigureComparison(differences=[], different=0, figures=12, under_way=0),
    feeds=FeedsAccount(
        sent=60,
        answered={"post": 30, "delete": 5, "follow": 15, "unfollow": 10},
        lost=0,
        read=80,
        impossible=0,
        users=48,
        wrong=0,
        entries=300,
        differences=0,
    ),
    killed=("worker-effects", "bridge", "worker-outbox"),
    others={},
    caught_events=5,
)
# What is damaged, to what, and every line that must say so.
DAMAGES: list[tuple[str, Any, set[str]]] = [
    ("rough.sent", 101, {"accepted"}),
    ("calm.accepted", 99, {"accepted", "committed", "events committed"}),
    ("calm.changes_attempted", 41, {"changes"}),
    ("rough.changes_attempted", 41, {"changes"}),
    ("rough.changes_answered", 39, {"changes", "events committed"}),
    ("calm.stock", 119, {"events committed", "of them stock"}),
    ("stock", 239, {"of them stock", "effects applied"}),
    ("missing", 1, {"committed"}),
    ("counts.orders", 199, {"committed"}),
    ("counts.orders", 201, {"committed"}),
    ("calm.drawn", 0, {"probe numbers"}),
    ("rough.drawn", 0, {"probe numbers"}),
    ("calm.simple", 49, {"events committed", "duplicate effects"}),
    (
        "counts.events",
        751,
        {"events committed", "published", "in Kafka", "effects applied"},
    ),
    ("counts.published", 749, {"published"}),
    ("kafka.distinct", 749, {"in Kafka"}),
    ("counts.heard", 511, {"effects applied", "lost"}),
    ("counts.applied", 509, {"effects applied", "lost"}),
    ("counts.processed_events", 99, {"duplicate effects"}),
    ("counts.processed_events", 101, {"duplicate effects"}),
    ("order.duplicates", 1, {"duplicate effects", "order violations"}),
    ("order.lost", 1, {"order violations"}),
    ("order.violations", 1, {"order violations"}),
    ("order.drawn", 0, {"order violations", "events committed"}),
    ("kafka.messages", 756, {"duplicates in Kafka"}),
    ("calm_duplicates", 1, {"duplicates in Kafka"}),
    ("caught_events", 0, {"drain killed in a batch", "duplicates in Kafka"}),
    ("caught_events", None, {"drain killed in a batch", "duplicates in Kafka"}),
    ("figures.different", 1, {"figures"}),
    ("figures.under_way", 1, {"figures"}),
    ("feeds.sent", 61, {"changes of feeds"}),
    ("feeds.answered", {"post": 59}, {"changes of feeds", "events committed"}),
    ("feeds.lost", 1, {"changes of feeds"}),
    ("feeds.read", 0, {"pages read meanwhile"}),
    ("feeds.impossible", 1, {"pages read meanwhile"}),
    ("feeds.users", 0, {"feeds"}),
    ("feeds.wrong", 1, {"feeds"}),
    ("feeds.entries", 0, {"stored entries"}),
    ("feeds.differences", 1, {"stored entries"}),
]


def damaged(observed: Any, path: str, value: Any) -> Any:
    """A copy in which the one field at this path has this value."""
    name, _, rest = path.partition(".")
    new = damaged(getattr(observed, name), rest, value) if rest else value
    return replace(observed, **{name: new})


def failed(observations: Observations) -> set[str]:
    return {line.name for line in account(observations) if line.ok is False}


def line_of(observations: Observations, name: str) -> ReportLine:
    return next(line for line in account(observations) if line.name == name)


def test_a_healthy_run_is_ok_in_every_line() -> None:
    assert failed(HEALTHY) == set()


@pytest.mark.parametrize(("path", "value", "lines"), DAMAGES)
def test_one_damage_fails_the_lines_it_concerns(path: str, value: Any, lines: set[str]) -> None:
    assert failed(damaged(HEALTHY, path, value)) == lines


def test_no_verdict_is_left_untried() -> None:
    tried = set().union(*(lines for _, _, lines in DAMAGES))
    assert tried == {line.name for line in account(HEALTHY) if line.ok is not None}


def test_one_effect_missing_and_one_twice_do_not_cancel_out() -> None:
    observed = damaged(HEALTHY, "counts.processed_events", 99)
    observed = damaged(observed, "order.duplicates", 1)
    line = line_of(observed, "duplicate effects")
    assert (line.value, line.ok) == ("2", False)


def test_who_else_has_killed_something_is_told() -> None:
    killed = replace(HEALTHY, others={"bridge": 2})
    assert failed(killed) == set()
    assert line_of(killed, "killed by others").value == "bridge 2"
    assert failed(damaged(killed, "calm_duplicates", 1)) == {"duplicates in Kafka"}
    assert not any(line.name == "killed by others" for line in account(HEALTHY))


def test_duplicates_of_a_drain_that_somebody_else_killed_are_not_judged() -> None:
    killed = replace(HEALTHY, others={"worker-outbox": 1}, calm_duplicates=7)
    assert line_of(killed, "duplicates in Kafka").ok is None
    assert line_of(replace(killed, calm_duplicates=0), "duplicates in Kafka").ok is True


def test_changes_are_shown_as_attempted_and_answered() -> None:
    line = line_of(damaged(HEALTHY, "calm.changes_answered", 38), "changes")
    assert (line.value, line.ok) == ("78 of 80", False)
    assert line.note == "answered 200, of those sent: 50 payments, 10 shipments, 20 cancellations"


@pytest.mark.parametrize(("ok", "kept"), [(True, True), (None, True), (False, False)])
def test_one_failed_line_fails_the_report(ok: bool | None, kept: bool) -> None:
    console = Console(width=120, quiet=True)
    assert (
        print_report(console, [ReportLine("first", "1", ok), ReportLine("last", "2", True)], "So.")
        is kept
    )


@pytest.mark.parametrize(
    ("caught", "messages", "before", "sentence"),
    [
        (5, 753, 0, "died with 5 events in hand; 3 of them had been sent and went out again; the"),
        (1, 751, 0, "died with 1 event in hand; 1 of them had been sent and went out again; the"),
        (5, 750, 0, "died with 5 events in hand, none of which was sent twice"),
        (2, 753, 0, "died with 2 events in hand, but 3 events went out again; the inbox"),
        (5, 753, 1, "1 before any kill; the drain died with 5 events in hand; 2 of them had"),
    ],
)
def test_the_sentence_about_duplicates_agrees_with_their_number(
    caught: int, messages: int, before: int, sentence: str
) -> None:
    seen = damaged(damaged(HEALTHY, "caught_events", caught), "kafka.messages", messages)
    line = line_of(replace(seen, calm_duplicates=before), "duplicates in Kafka")
    assert line.value == f"{messages - 750}"
    assert sentence in line.note


def test_every_line_with_a_verdict_says_what_it_means() -> None:
    assert [line.name for line in account(HEALTHY) if line.ok is not None and not line.note] == []


def test_the_conclusion_says_what_was_shown() -> None:
    assert conclusion(HEALTHY, account(HEALTHY)) == (
        "Nothing was lost, doubled or reordered: 200 orders, 80 changes, 60 changes of feeds and 70"
        " probe numbers made 750 events, 3 processes were killed, and each of the 510 events with an"
        " effect here took effect exactly once. The feeds of 48 users equal the truth."
    )


def test_the_conclusion_names_what_was_broken() -> None:
    broken = damaged(HEALTHY, "missing", 1)
    assert conclusion(broken, account(broken)) == (
        "1 promise was broken, see the lines that FAILED: committed."
    )
    broken = damaged(HEALTHY, "counts.applied", 509)
    assert "2 promises were broken" in conclusion(broken, account(broken))


def test_the_conclusion_of_a_busy_machine_says_what_to_try() -> None:
    slow = damaged(HEALTHY, "rough.accepted", 90)
    assert 'make demo ARGS="--rate 50"' in conclusion(slow, account(slow))
    lossy = damaged(HEALTHY, "missing", 1)
    assert "--rate" not in conclusion(lossy, account(lossy))


def test_the_conclusion_is_the_last_line() -> None:
    console = Console(width=200, file=StringIO())
    print_report(console, [ReportLine("first", "1", True)], "So it is.")
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().splitlines()[-1] == "So it is."
