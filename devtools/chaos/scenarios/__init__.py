"""The scenarios of `make chaos`, declared in one table."""

from devtools.chaos.scenarios import (
    clocks,
    feed_races,
    feeds,
    foreign,
    kafka,
    notification_races,
    notifications,
    operations,
    partitions,
    poison,
    postgres,
    processes,
    provocations,
    redis,
)
from devtools.chaos.scenarios.base import Scenario

__all__ = ["SCENARIOS", "Scenario"]

SCENARIOS: tuple[Scenario, ...] = (
    *processes.SCENARIOS,
    *postgres.SCENARIOS,
    *redis.SCENARIOS,
    *kafka.SCENARIOS,
    *partitions.SCENARIOS,
    *poison.SCENARIOS,
    *foreign.SCENARIOS,
    *operations.SCENARIOS,
    *clocks.SCENARIOS,
    *feeds.SCENARIOS,
    *notifications.SCENARIOS,
    *provocations.SCENARIOS,
    *feed_races.SCENARIOS,
    *notification_races.SCENARIOS,
    operations.RESTORE,
)
