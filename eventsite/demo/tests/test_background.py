"""What dies beside the load must be heard of."""

from __future__ import annotations

import threading

import pytest

from eventsite.demo.background import Background, probe_load
from eventsite.probe import services as probe_services


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
    monkeypatch.setattr("eventsite.demo.background.PROBE_INTERVAL", 0.0)
    with pytest.raises(LookupError, match="no probe"), probe_load() as drawn:
        assert tried.wait(10)
    assert drawn.numbers == 0
