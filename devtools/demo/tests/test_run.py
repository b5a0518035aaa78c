"""What the run says, and whether it goes on, when effects do not arrive."""

from __future__ import annotations

from io import StringIO
from typing import cast

import pytest
from rich.console import Console

from devtools.demo import run
from devtools.localstack import LocalStack
from devtools.testing import measure

NOTHING = measure.Counts(orders=0, events=0, published=0, heard=0, applied=0, processed_events=0)
STUCK = measure.Counts(orders=0, events=9, published=8, heard=8, applied=7, processed_events=0)
WHOLE = measure.Counts(orders=0, events=9, published=9, heard=8, applied=8, processed_events=0)
SHORTFALL = "not every event has taken effect: 9 committed, 8 published, 7 of 8 applied"


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=120)


def said(console: Console) -> str:
    return cast(StringIO, console.file).getvalue()


def test_a_warm_up_that_does_not_settle_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, console: Console
) -> None:
    monkeypatch.setattr(measure, "counts", lambda: NOTHING)
    monkeypatch.setattr(measure, "count_in_kafka", lambda: measure.KafkaCount(0, 0))
    monkeypatch.setattr(run, "_warm_up", lambda _: STUCK)
    assert not run.run(cast(LocalStack, None), orders=1, rate=1.0, port=0, console=console)
    assert SHORTFALL in said(console)


@pytest.mark.parametrize(
    ("found", "message", "other"),
    [(STUCK, SHORTFALL, "had taken"), (WHOLE, "every event had taken effect", "not every")],
)
def test_effects_are_said_to_be_there_only_if_they_are(
    monkeypatch: pytest.MonkeyPatch,
    found: measure.Counts,
    message: str,
    other: str,
) -> None:
    monkeypatch.setattr(measure, "settle", lambda _: found)
    seen, sentence = run._settle()
    assert seen == found
    assert message in sentence
    assert other not in sentence
