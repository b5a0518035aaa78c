"""A demo that cannot fail proves nothing: every verdict fails for the damage it is there for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from eventsite.demo.account import Half, Observations, account
from eventsite.demo.report import Line, print_report
from eventsite.load.measure import Counts, KafkaCount, Latency
from eventsite.probe.queries import OrderVerdict
from eventsite.recount import Comparison

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
    # 200 orders, 100 of them simple, 80 changes, 70 numbers (10 of them the warm-up's), 240 lines
    counts=Counts(
        orders=200, events=690, published=690, heard=450, applied=450, processed_events=100
    ),
    stock=240,
    missing=0,
    order=OrderVerdict(drawn=70, applied=70, lost=0, duplicates=0, violations=0),
    kafka=KafkaCount(messages=693, distinct=690),
    calm_duplicates=0,
    figures=Comparison(differences=[], different=0, figures=12, under_way=0),
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
    ("calm.drawn", 0, {"probe numbers drawn"}),
    ("rough.drawn", 0, {"probe numbers drawn"}),
    ("calm.simple", 49, {"events committed", "duplicate effects"}),
    (
        "counts.events",
        691,
        {"events committed", "published", "in Kafka", "effects applied"},
    ),
    ("counts.published", 689, {"published"}),
    ("kafka.distinct", 689, {"in Kafka"}),
    ("counts.heard", 451, {"effects applied", "lost"}),
    ("counts.applied", 449, {"effects applied", "lost"}),
    ("counts.processed_events", 99, {"duplicate effects"}),
    ("counts.processed_events", 101, {"duplicate effects"}),
    ("order.duplicates", 1, {"duplicate effects", "order violations"}),
    ("order.lost", 1, {"order violations"}),
    ("order.violations", 1, {"order violations"}),
    ("order.drawn", 0, {"order violations", "events committed"}),
    ("kafka.messages", 696, {"duplicates in Kafka"}),
    ("calm_duplicates", 1, {"duplicates in Kafka"}),
    ("caught_events", 0, {"drain killed in a batch", "duplicates in Kafka"}),
    ("caught_events", None, {"drain killed in a batch", "duplicates in Kafka"}),
    ("figures.different", 1, {"figures"}),
    ("figures.under_way", 1, {"figures"}),
]


def damaged(observed: Any, path: str, value: Any) -> Any:
    """A copy in which the one field at this path has this value."""
    name, _, rest = path.partition(".")
    new = damaged(getattr(observed, name), rest, value) if rest else value
    return replace(observed, **{name: new})


def failed(observations: Observations) -> set[str]:
    return {line.name for line in account(observations) if line.ok is False}


def line_of(observations: Observations, name: str) -> Line:
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
    assert (line.value, line.ok) == ("80/78", False)
    assert line.note == "attempted/answered 200: 50 payments, 10 shipments, 20 cancellations"


@pytest.mark.parametrize(("ok", "kept"), [(True, True), (None, True), (False, False)])
def test_one_failed_line_fails_the_report(ok: bool | None, kept: bool) -> None:
    console = Console(width=120, quiet=True)
    assert print_report(console, [Line("first", "1", ok), Line("last", "2", True)]) is kept
