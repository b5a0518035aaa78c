"""Somebody adds a partition to a topic of ours and writes to it."""

from __future__ import annotations

import json
import re
import time
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

from devtools.chaos.ground import Ground, GroundError
from devtools.chaos.scenarios import broker
from devtools.chaos.scenarios.base import Scenario
from devtools.probe.events import PROBE_TOPIC
from outbox.kafka import admin

__all__ = ["SCENARIOS"]

HANDLER = "append_probe_entries"
MESSAGES = 20


def added(ground: Ground) -> None:
    """What is known goes on, and the command that a deployment names takes the new one in."""
    bridge = ground.unit("bridge").pid
    with ground.fault("a partition is added, and another program writes to it", repeats=False):
        number = broker.add_partition(PROBE_TOPIC.name)
        for _ in range(MESSAGES):
            broker.produce_raw(
                PROBE_TOPIC.name,
                number,
                b"foreign",
                b"{}",
                {"ce_id": str(uuid4()).encode(), "ce_type": b"OF_ANOTHER_PROGRAM"},
            )
        seconds = ground.wait(lambda: _readiness(ground) == "unhealthy", 60, "readiness says so")
    ground.figures["seen after"] = f"{seconds:.1f} s"
    time.sleep(ground.seconds(20, 5))  # under load, with twelve of thirteen
    known = ground.write(*(f"known-{each}" for each in range(50)))  # on most of the twelve
    ground.wait(lambda: ground.applied(known), 20, "effects on the known partitions")
    command = re.search(r"manage\.py (sync_routes --partitions)", ground.manage("prepare"))
    if command is None:
        raise GroundError("the preparation does not name the command")
    ground.manage(*command[1].split())
    seconds = ground.wait(lambda: _is_read(ground, number), 30, "the new partition is read")
    ground.figures["taken in after"] = f"{seconds:.1f} s"
    ground.wait(lambda: _readiness(ground) == "healthy", 10, "readiness is well again")
    ground.demand(ground.unit("bridge").pid == bridge, "the bridge was started again")


def _readiness(ground: Ground) -> str:
    url = f"{ground.unit('bridge').program.health}/ready?strict=1"
    try:
        with urlopen(url, timeout=10) as answer:  # noqa: S310  (our own process)
            return str(json.load(answer)["checks"]["partitions"])
    except HTTPError as error:
        with error:
            return str(json.load(error)["checks"]["partitions"])


def _is_read(ground: Ground, number: int) -> bool:
    end = admin.topic_states([PROBE_TOPIC.name])[PROBE_TOPIC.name].latest[number]
    sql = (
        "SELECT next_offset FROM bridge_position"
        ' WHERE handler = %s AND topic = %s AND "partition" = %s'
    )
    rows = ground.evidence.rows(sql, (HANDLER, PROBE_TOPIC.name, number))
    return end >= MESSAGES and rows == [(end,)]


SCENARIOS = (
    Scenario(
        name="partition-added",
        title="somebody adds a partition, `sync_routes --partitions`",
        play=added,
        quick=True,
    ),
)
