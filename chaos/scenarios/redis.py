"""Redis killed, emptied, and left with nobody to work off its queues."""

from __future__ import annotations

import time
from typing import cast

from chaos.ground import QUEUES, Ground
from chaos.scenarios.base import Scenario
from outbox.conf import BRIDGE

__all__ = ["SCENARIOS"]

MEMORY_BOUND_MIB = 256.0


def kill(ground: Ground) -> None:
    for _ in range(1 if ground.quick else 3):
        ground.kill("redis", back_after=2.0)
        time.sleep(4)


def flush_and_kill_a_bridge(ground: Ground) -> None:
    with ground.fault("FLUSHALL and SIGKILL of the bridge, together"), ground.redis() as client:
        for _ in range(1 if ground.quick else 4):
            with ground.away("bridge"):
                client.flushall()
                time.sleep(0.5)
            client.flushall()
            time.sleep(4)


def workers_away(ground: Ground) -> None:
    """Redis stays bounded: the bridge stops sending when the queue is long."""
    peak_memory = peak_queue = 0.0
    workers = ground.away("worker-effects", "worker-outbox")
    with ground.fault("all workers away"), ground.redis() as client, workers:
        give_up = time.monotonic() + ground.seconds(600, 30)
        while time.monotonic() < give_up:
            info = cast(dict[str, int], client.info("memory"))
            lengths = [cast(int, client.llen(name)) for name in QUEUES]
            peak_memory = max(peak_memory, info["used_memory"] / 2**20)
            peak_queue = max(peak_queue, *lengths)
            time.sleep(1)
    ground.figures["Redis at most"] = f"{peak_memory:.1f} MiB, {peak_queue:.0f} tasks a queue"
    # A task may carry the chunks of all partitions; beat adds none to a queue that is long.
    bound = 2 * BRIDGE.queue_bound
    ground.demand(peak_memory < MEMORY_BOUND_MIB, f"Redis grew to {peak_memory:.0f} MiB")
    ground.demand(peak_queue <= bound, f"a queue grew to {peak_queue:.0f} tasks")


SCENARIOS = (
    Scenario(name="redis-kill", title="Redis: SIGKILL and start", play=kill),
    Scenario(
        name="redis-flush",
        title="FLUSHALL together with SIGKILL of the bridge",
        play=flush_and_kill_a_bridge,
        quick=True,
    ),
    Scenario(
        name="workers-away",
        title="all workers away for ten minutes; Redis stays bounded",
        play=workers_away,
        recover_within=180.0,
        settle_within=180.0,
    ),
)
