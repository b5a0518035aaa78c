"""The scenarios of `make chaos`, declared in one table."""

from chaos.scenarios import (
    clocks,
    kafka,
    operations,
    poison,
    postgres,
    processes,
    provocations,
    redis,
)
from chaos.scenarios.base import Scenario

__all__ = ["SCENARIOS", "Scenario"]

SCENARIOS: tuple[Scenario, ...] = (
    *processes.SCENARIOS,
    *postgres.SCENARIOS,
    *redis.SCENARIOS,
    *kafka.SCENARIOS,
    *poison.SCENARIOS,
    *operations.SCENARIOS,
    *clocks.SCENARIOS,
    *provocations.SCENARIOS,
    operations.RESTORE,
)
