"""Kafka killed, frozen, away, and its topic gone."""

from __future__ import annotations

import time

from devtools.chaos.ground import Ground
from devtools.chaos.scenarios import broker
from devtools.chaos.scenarios.base import Scenario
from devtools.probe.events import PROBE_TOPIC
from outbox.topics import LANES

__all__ = ["SCENARIOS"]


def kill(ground: Ground) -> None:
    for _ in range(1 if ground.quick else 3):
        ground.kill("kafka", back_after=0.0)
        time.sleep(4)


def frozen(ground: Ground) -> None:
    what = "Kafka frozen beyond the flush (5 s) and the sessions (6 s)"
    with ground.fault(what), ground.frozen("kafka"):
        time.sleep(ground.seconds(30, 9))


def away(ground: Ground) -> None:
    with ground.fault("Kafka away"), ground.away("kafka"):
        time.sleep(ground.seconds(60, 12))


def topic_recreated(ground: Ground) -> None:
    """What was in the log and not applied goes out again from the outbox (`--recreated`)."""
    with ground.fault("the probe's topic is deleted and recreated"):
        broker.delete_topic(PROBE_TOPIC.name)
        time.sleep(3)
        ground.manage("create_topics")
        ground.figures["sync_routes"] = ground.manage("sync_routes", "--recreated")
        time.sleep(3)


SCENARIOS = (
    Scenario(name="kafka-kill", title="Kafka: SIGKILL and start", play=kill, quick=True),
    Scenario(name="kafka-frozen", title="Kafka frozen beyond the message timeout", play=frozen),
    Scenario(name="kafka-away", title="Kafka unavailable for a minute", play=away),
    Scenario(
        name="topic-anew",
        title="the topic is deleted and recreated, `sync_routes --recreated`",
        play=topic_recreated,
        log_complete=False,
        lane_updates=LANES,  # what is pending again may lie below the drains' floors
    ),
)
