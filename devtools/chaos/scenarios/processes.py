"""Our own processes killed, frozen, doubled."""

from __future__ import annotations

import time
from contextlib import ExitStack

from devtools.chaos.ground import Ground
from devtools.chaos.scenarios.base import Scenario

__all__ = ["SCENARIOS"]

# Beyond every deadline that may give a silent process's work to another: PostgreSQL's idle
# timeout (8 s), a chunk's first deadline (10 s), the group's session timeout (6 s).
FROZEN_SECONDS = 20.0
# Enough for a drain to be killed twice before it is through: 4,000 events a claim, two claims.
BACKLOG = 60_000
BACKLOG_COMMIT = 400


def calm(ground: Ground) -> None:
    time.sleep(ground.seconds(20, 5))


def kill_each(ground: Ground) -> None:
    for _ in range(1 if ground.quick else 3):
        for name in ("worker-effects", "bridge", "web", "beat"):
            ground.kill(name)
            time.sleep(1)
        with ground.fault("SIGKILL of a drain in its batch"):
            caught = ground.catch_drain()
            ground.kill("worker-outbox")
        ground.figures["in the drain's hands"] = str(caught)
        time.sleep(1)


def kill_effects_repeatedly(ground: Ground) -> None:
    """The pool's processes, not their parent: Celery starts others."""
    with ground.fault("SIGKILL of the effects' processes, again and again", repeats=False):
        for _ in range(round(ground.seconds(20, 6))):
            ground.kill_children("worker-effects")
            time.sleep(1)


def freeze_drain(ground: Ground) -> None:
    ground.cleanup.enter_context(ground.another("worker-outbox"))
    ground.cleanup.callback(ground.unit("worker-outbox").resume)
    with ground.fault("SIGSTOP of a drain in its batch"):
        ground.figures["in the drain's hands"] = str(_catch_first(ground))
        time.sleep(FROZEN_SECONDS)


def _catch_first(ground: Ground) -> int:
    """Of two drains the stack's own: the other is silent until it is caught."""
    [second] = ground.extra
    second.pause()
    try:
        return ground.catch_drain("worker-outbox")
    finally:
        second.resume()


def kill_drain_in_a_backlog(ground: Ground) -> None:
    with ground.fault("no drain while a backlog is written", repeats=False):
        with ground.stopped("worker-outbox"):
            for number in range(BACKLOG // BACKLOG_COMMIT):
                names = [f"behind-{(number + key) % 500}" for key in range(BACKLOG_COMMIT // 4)]
                ground.write(*names * 4)
        for _ in range(2):
            ground.wait(lambda: ground.evidence.lane_holders() == 2, 60, "two claims at once")
            ground.kill("worker-outbox")


def wake_drain(ground: Ground) -> None:
    ground.wake("worker-outbox")


def freeze_worker(ground: Ground) -> None:
    ground.cleanup.enter_context(ground.another("worker-effects"))
    ground.cleanup.callback(ground.unit("worker-effects").resume)
    with ground.fault("SIGSTOP of an effects' worker", repeats=False):
        ground.unit("worker-effects").pause()
        time.sleep(FROZEN_SECONDS)


def wake_worker(ground: Ground) -> None:
    ground.wake("worker-effects")


def freeze_bridge(ground: Ground) -> None:
    ground.cleanup.enter_context(ground.another("bridge"))
    ground.cleanup.callback(ground.unit("bridge").resume)
    with ground.fault("SIGSTOP of a bridge", repeats=False):
        ground.unit("bridge").pause()
        time.sleep(FROZEN_SECONDS)


def wake_bridge(ground: Ground) -> None:
    ground.wake("bridge", watched=8.0)


def two_beats(ground: Ground) -> None:
    with ground.another("beat"):
        time.sleep(ground.seconds(20, 8))


def bridges_come_and_go(ground: Ground) -> None:
    with ground.fault("bridges join and leave", repeats=False):
        for _ in range(1 if ground.quick else 3):
            with ExitStack() as started:
                for _ in range(2):
                    started.enter_context(ground.another("bridge"))
                    time.sleep(3)
                ground.kill("bridge", back_after=3)
                time.sleep(3)


SCENARIOS = (
    Scenario(name="calm", title="nothing is disturbed", play=calm, quick=True),
    Scenario(
        name="kill-each",
        title="SIGKILL of worker, bridge, web, beat and of a drain in its batch, in turn",
        play=kill_each,
        quick=True,
    ),
    Scenario(
        name="kill-in-backlog",
        title="SIGKILL of a drain, twice, while it sends a backlog with two claims at once",
        play=kill_drain_in_a_backlog,
    ),
    Scenario(
        name="kill-effects",
        title="SIGKILL of the effects' processes once a second",
        play=kill_effects_repeatedly,
    ),
    Scenario(
        name="freeze-drain",
        title="SIGSTOP of a drain in its batch beyond every deadline, SIGCONT when all is done",
        play=freeze_drain,
        after=wake_drain,
        quick=True,
    ),
    Scenario(
        name="freeze-worker",
        title="SIGSTOP of an effects' worker beyond every deadline, then SIGCONT",
        play=freeze_worker,
        after=wake_worker,
    ),
    Scenario(
        name="freeze-bridge",
        title="SIGSTOP of a bridge beyond every deadline, then SIGCONT",
        play=freeze_bridge,
        after=wake_bridge,
    ),
    Scenario(name="two-beats", title="two beats at once", play=two_beats),
    Scenario(
        name="bridges-come-and-go",
        title="three bridges joining and leaving, one by SIGKILL",
        play=bridges_come_and_go,
    ),
)
