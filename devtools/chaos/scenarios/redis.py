"""Redis killed, emptied, answering with errors, and left with nobody to work off its queues."""

from __future__ import annotations

import time
from typing import cast

from django.conf import settings

from devtools.chaos.ground import Ground
from devtools.chaos.scenarios.base import Scenario
from devtools.localstack import PLAN
from devtools.testing.refusing_redis import REFUSALS, refusing
from outbox.conf import BRIDGE

__all__ = ["SCENARIOS"]

MEMORY_BOUND_MIB = 256.0
PROCESSES = PLAN.pipeline


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
    queues = [queue.name for queue in settings.CELERY_TASK_QUEUES]
    workers = ground.away("worker-effects", "worker-outbox")
    with ground.fault("all workers away"), ground.redis() as client, workers:
        give_up = time.monotonic() + ground.seconds(600, 30)
        while time.monotonic() < give_up:
            info = cast(dict[str, int], client.info("memory"))
            lengths = [cast(int, client.llen(name)) for name in queues]
            peak_memory = max(peak_memory, info["used_memory"] / 2**20)
            peak_queue = max(peak_queue, *lengths)
            time.sleep(1)
    ground.figures["Redis at most"] = f"{peak_memory:.1f} MiB, {peak_queue:.0f} tasks a queue"
    # A task may carry the chunks of all partitions; beat adds none to a queue that is long.
    bound = 2 * BRIDGE.queue_bound
    ground.demand(peak_memory < MEMORY_BOUND_MIB, f"Redis grew to {peak_memory:.0f} MiB")
    ground.demand(peak_queue <= bound, f"a queue grew to {peak_queue:.0f} tasks")


def refuses(ground: Ground) -> None:
    """Every process waits until it takes writes again; none ends."""
    before = {name: ground.unit(name).pid for name in PROCESSES}
    for kind in REFUSALS:
        with ground.fault(f"Redis refuses: {kind}"), refusing(kind, ground.stack.env["REDIS_URL"]):
            time.sleep(ground.seconds(20, 6))
        time.sleep(4)
    ended = [name for name, pid in before.items() if ground.unit(name).pid != pid]
    ground.demand(not ended, f"ended while Redis refused: {', '.join(ended)}")


SCENARIOS = (
    Scenario(name="redis-kill", title="Redis: SIGKILL and start", play=kill),
    Scenario(
        name="redis-flush",
        title="FLUSHALL together with SIGKILL of the bridge",
        play=flush_and_kill_a_bridge,
        quick=True,
    ),
    Scenario(
        name="redis-refuses",
        title="Redis answers with errors: full, a replica, without its password, busy",
        play=refuses,
        quick=True,
    ),
    Scenario(
        name="workers-away",
        title="all workers stopped for ten minutes; Redis stays bounded",
        play=workers_away,
        recover_within=180.0,
        settle_within=180.0,
    ),
)
