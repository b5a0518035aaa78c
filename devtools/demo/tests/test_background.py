"""What dies beside the load must be heard of."""

from __future__ import annotations

import threading
from io import StringIO

import pytest
from rich.console import Console

from devtools.demo.background import Background, event_progress, probe_load
from devtools.probe import services as probe_services
from devtools.testing import measure
from devtools.testing.patience import PATIENCE


def test_a_failure_is_raised_by_finish_and_not_by_wait() -> None:
    def work() -> None:
        raise LookupError("gone")

    background = Background(work)
    background.wait()
    with pytest.raises(LookupError, match="gone"):
        background.finish()


def test_work_that_ends_well_raises_nothing() -> None:
    done: list[bool] = []
    Background(lambda: done.append(True)).finish()
    assert done == [True]


def test_a_probe_that_cannot_draw_fails_the_load_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = threading.Event()

    def draw(keys: list[str]) -> None:
        tried.set()
        raise LookupError("no probe")

    monkeypatch.setattr(probe_services, "draw", draw)
    monkeypatch.setattr("devtools.demo.background.PROBE_INTERVAL", 0.0)
    with pytest.raises(LookupError, match="no probe"), probe_load() as drawn:
        assert tried.wait(PATIENCE)
    assert drawn.numbers == 0


def test_the_bar_ends_with_what_there_is_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last look by the clock may be half a second old."""
    applied = 7
    monkeypatch.setattr(
        measure,
        "counts",
        lambda: measure.Counts(
            orders=0, events=9, published=9, heard=8, applied=applied, processed_events=0
        ),
    )
    console = Console(file=StringIO(), width=120)
    with event_progress(console):
        applied = 8
    assert isinstance(console.file, StringIO)
    assert "8/8" in console.file.getvalue()
