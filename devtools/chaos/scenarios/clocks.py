"""Wall clocks that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import psutil

from devtools.chaos import clock
from devtools.chaos.ground import Ground, GroundError
from devtools.chaos.scenarios.base import Scenario
from devtools.localstack import PLAN

__all__ = ["SCENARIOS", "demand_the_clock_is_off"]

HOUR = 3600
PROCESSES = PLAN.pipeline
WITHIN = 30.0


def off_by_an_hour(ground: Ground) -> None:
    """One process at a time, ahead and behind. An event has its effect, and one that fails is tried
    again and mended: that takes beat, a lease and a backoff."""
    effects, redrives = [], []
    for name in PROCESSES:
        for seconds in (HOUR,) if ground.quick else (HOUR, -HOUR):
            side = "ahead" if seconds > 0 else "behind"
            what = f"the clock of {name} is an hour {side}"
            # Its process is stopped and started in its own way: no drain may lose a batch by it.
            with (
                ground.fault(what, repeats=False),
                ground.changed([name], CHAOS_CLOCK_SECONDS=str(seconds)),
            ):
                demand_the_clock_is_off(ground, name, seconds)
                effects.append(_effect(ground, f"{name}-{side}"))
                redrives.append(_redrive(ground, f"{name}-{side}"))
    ground.figures["effect within"] = f"{max(effects):.1f} s"
    ground.figures["after a failure"] = f"{max(redrives):.1f} s"


def demand_the_clock_is_off(ground: Ground, name: str, seconds: float) -> None:
    """The process has shifted its clock as ordered, and its children too."""
    top = psutil.Process(ground.unit(name).pid)
    pids = [top.pid, *(child.pid for child in top.children(recursive=True))]
    offsets = clock.seen_offsets(ground.directory, pids)
    ground.demand(bool(offsets), f"no process of {name} has shifted its clock")
    for offset in offsets:
        ground.demand(abs(offset - seconds) < 1, f"{name} is off by {offset:.0f} s")


def _effect(ground: Ground, key: str) -> float:
    attempt = ground.write(key)
    return _seconds(ground, partial(ground.applied, attempt), f"an effect of {key}")


def _redrive(ground: Ground, key: str) -> float:
    ground.switches.off("healed")
    letter = partial(ground.evidence.letter_is_open, ground.write_poison(key, "raise"))
    attempt = ground.attempts[-1]
    _seconds(ground, letter, f"a dead letter of {key}")
    ground.switches.on("healed")
    return _seconds(ground, partial(ground.applied, attempt), f"an effect of {key} tried again")


def _seconds(ground: Ground, condition: Callable[[], bool], what: str) -> float:
    try:
        return ground.wait(condition, WITHIN, what)
    except GroundError as error:
        ground.demand(False, str(error))
        return WITHIN


SCENARIOS = (
    Scenario(
        name="clock-off",
        title="the clock of one process is an hour ahead, then behind, each in turn",
        play=off_by_an_hour,
    ),
)
