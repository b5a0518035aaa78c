"""Feeds under load, while workers die in slices, freeze, and Redis forgets or remembers too much."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from devtools.chaos.ground import Ground
from devtools.chaos.scenarios.base import Scenario
from devtools.feeders.users import Mix

__all__ = ["SCENARIOS", "bring_back", "keep_files"]

FROZEN_SECONDS = 20.0  # beyond the lease of a slice and every timeout of PostgreSQL
SYNC_SECONDS = 1.5  # Redis syncs its file every second


def _kill_in_a_slice(ground: Ground, where: str) -> None:
    """SIGKILL of the effects' worker while it holds slices, at this place."""
    with ground.fault(f"SIGKILL of a worker {where.replace('-', ' ')} slice", repeats=False):
        ground.switches.off(f"held-{where}")
        ground.switches.on(f"stop-{where}")
        try:
            ground.wait(lambda: ground.switches.is_on(f"held-{where}"), 30, f"a slice {where}")
            with ground.away("worker-effects"):
                ground.switches.off(f"stop-{where}")
        finally:
            ground.switches.off(f"stop-{where}")


def kill_in_slices(ground: Ground) -> None:
    """Before the entries are written; between entries and cache."""
    for _ in range(1 if ground.quick else 3):
        for where in ("before-post", "after-post"):
            _kill_in_a_slice(ground, where)
            time.sleep(ground.seconds(3, 1))
    if not ground.quick:
        for where in ("before-backfill", "after-backfill", "before-cleanup", "before-storing"):
            _kill_in_a_slice(ground, where)


def freeze_in_a_slice(ground: Ground) -> None:
    """A worker is stopped between its entries and the cache, and wakes when others have long done
    its slices, and the world has changed."""
    ground.cleanup.enter_context(ground.another("worker-effects"))
    ground.cleanup.callback(ground.unit("worker-effects").resume)
    with ground.fault("SIGSTOP of a worker in a slice", repeats=False):
        ground.switches.off("held-after-post")
        [second] = ground.extra
        second.pause()
        ground.switches.on("stop-after-post")
        ground.wait(lambda: ground.switches.is_on("held-after-post"), 30, "a slice")
        ground.unit("worker-effects").pause()
        ground.switches.off("stop-after-post")
        second.resume()
        time.sleep(FROZEN_SECONDS)


def wake(ground: Ground) -> None:
    ground.unit("worker-effects").resume()
    time.sleep(4)


def keep_files(ground: Ground) -> Path:
    """A copy of Redis's files as they are now."""
    copy = ground.directory / "redis-before"
    time.sleep(SYNC_SECONDS)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(_files(ground), copy)
    return copy


def bring_back(ground: Ground, copy: Path) -> None:
    """Redis killed, and started from the copy."""
    with ground.away("redis"):
        shutil.rmtree(_files(ground))
        shutil.copytree(copy, _files(ground))


def _files(ground: Ground) -> Path:
    return Path(ground.stack.state.root) / "redis"


def redis_forgets(ground: Ground) -> None:
    """Flushed, killed, and restarted from an older copy of its files, while feeds are read."""
    with ground.fault("FLUSHALL while feeds are read"), ground.redis() as client:
        for _ in range(2 if ground.quick else 6):
            client.flushall()
            time.sleep(0.7)
    ground.kill("redis", back_after=1.0)
    time.sleep(ground.seconds(3, 1))
    with ground.fault("Redis restarted from an older copy of its files"):
        copy = keep_files(ground)
        time.sleep(ground.seconds(5, 2))
        bring_back(ground, copy)


def storm(ground: Ground) -> None:
    """Everybody follows and unfollows the same few authors, across the threshold and back."""
    time.sleep(ground.seconds(30, 8))
    with ground.fault("SIGKILL of the effects' processes, again and again", repeats=False):
        for _ in range(round(ground.seconds(10, 4))):
            ground.kill_children("worker-effects")
            time.sleep(1)


STORM = Mix(post=0.1, delete=0.03, follow=0.3, unfollow=0.3, stars=2)

SCENARIOS = (
    Scenario(
        name="feeds-kill",
        title="SIGKILL of a worker in a slice of the fan-out, before its entries and before the cache",
        play=kill_in_slices,
        feeders=30.0,
        rate=30.0,
        orders_rate=3.0,
        quick=True,
    ),
    Scenario(
        name="feeds-freeze",
        title="SIGSTOP of a worker between entries and cache beyond every deadline, then SIGCONT",
        play=freeze_in_a_slice,
        after=wake,
        feeders=40.0,
        rate=30.0,
        orders_rate=3.0,
    ),
    Scenario(
        name="feeds-redis",
        title="Redis flushed, killed, restarted from an older file while feeds are read",
        play=redis_forgets,
        feeders=40.0,
        rate=30.0,
        orders_rate=3.0,
        quick=True,
    ),
    Scenario(
        name="feeds-storm",
        title="a storm of follows and unfollows on two authors, the threshold crossed back and forth",
        play=storm,
        feeders=40.0,
        mix=STORM,
        rate=30.0,
        orders_rate=3.0,
    ),
)
